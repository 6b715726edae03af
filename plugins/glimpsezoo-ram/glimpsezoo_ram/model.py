"""RAM: Mnih et al., "Recurrent Models of Visual Attention" (2014): a recurrent network that sees one small glimpse per step.

Step t takes the paper's t-th glimpse. With patches rho of k scales around the place l:

    sense       g = max(0, W_a max(0, W_p rho + b_p) + W_b max(0, W_l l + b_l) + b_g)   (section 3, figure 1 B; sizes in section 4)
    fuse        h_t = max(0, W_g g_t + W_h h_{t-1} + b_h),  h_0 = 0                     (section 4, core network)
    locate      l_{t+1} ~ N(tanh(f(h_t)), deviation^2), clamped to [-1, 1]; l_1 is uniform (section 4, location network)
    classify    softmax(W_c h_t + b_c)                                                  (section 4, action network)

The retina is `glimpsezoo.retina`: k square patches of side g, 2 g, ... at whole pixels, averaged to g x g. Places are (x, y) in [-1, 1];
the pixel that contains l is the first one of the right half of the patch, and `Placing` says which region that is, exact to half a pixel.
In testing, `evaluations` runs per image are averaged (their log-probabilities), as K regions per image in every step.
Training (equation 2, REINFORCE with a learned baseline) is in training.py.

Where this departs from the paper, or decides what the paper leaves open:
- f has a hidden layer (`locator_hidden`; 0 is the paper's linear f).
- Pixels outside the image are 0 after normalisation by the task's mean and standard deviation.
- `decide=mode` takes the mean of every distribution: the centre of the image first, then tanh(f(h)).
- Other policies choose the first place as well.
- The gradient stops before f, and at l, in training only. Attacks (eval mode, gradients on) differentiate a draw as mean + deviation x
  noise and a patch as if it were bilinear (the values are the same).
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Normal

from glimpsezoo import Decision, GlimpseZooError, Made, Noise, Normalise, PaperMacs, Regions, State, Task, find_policy, retina
from glimpsezoo_ram.config import RamConfig
from glimpsezoo_ram.policy import InRuns, Placing, first_decision, gaussian_decision, given_decision

BRANCH, WIDTH = 128, 256  # units of the two branches of the glimpse network; of g and of h


@dataclass(frozen=True, kw_only=True)
class RamState(State):
    """The state of K runs per image."""

    hidden: Float[Tensor, "B K width"]
    """h."""


class GlimpseNetwork(nn.Module):
    """Patches and their place -> g."""

    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.pixels, self.place = nn.Linear(pixels, BRANCH), nn.Linear(2, BRANCH)
        self.what, self.where = nn.Linear(BRANCH, WIDTH), nn.Linear(BRANCH, WIDTH)

    def forward(self, patches: Float[Tensor, "N k C g g"], places: Float[Tensor, "N 2"]) -> Float[Tensor, "N width"]:
        return (self.what(self.pixels(patches.flatten(1)).relu()) + self.where(self.place(places).relu())).relu()


class RAM(InRuns[RamState]):
    """The recurrent attention model. Raises `GlimpseZooError` if a patch does not fit into the image."""

    sees = "none"
    padding = "zeros after normalisation"

    def __init__(self, config: RamConfig, task: Task) -> None:
        super().__init__()
        self.config, self.task, self.steps = config, task, config.glimpses
        self.stochastic = config.decide == "sample"
        self.surrogate = "reparametrised places, straight-through bilinear crop" if self.steps > 1 else None
        height, width = task.image_size
        if config.patch > min(height, width):
            raise GlimpseZooError(f"ram: expected patch to fit into images of {height} x {width} px, got {config.patch}: set a smaller one")
        self.placing = Placing(task.image_size, config.patch << (config.scales - 1))
        self.normalise = Normalise(task)
        self.glimpse = GlimpseNetwork(config.scales * task.channels * config.patch**2)
        self.input, self.recurrent = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.locator = locator(WIDTH, config.locator_hidden)
        self.classifier = nn.Linear(WIDTH, len(task.classes))
        self.baseline = nn.Linear(WIDTH, 1)  # in training alone
        self.follow(find_policy(config.policy))

    def start(self, images: Float[Tensor, "B C H W"], noise: Noise) -> tuple[RamState, Decision]:
        state = RamState(noise=noise, hidden=images.new_zeros(len(images), self.runs, WIDTH))
        return state, first_decision(self.placing, noise, self.runs, self._decide, images)

    def sense(self, images: Float[Tensor, "B C H W"], state: RamState, regions: Regions) -> Float[Tensor, "N width"]:
        soft = torch.is_grad_enabled() and not self.training and self.surrogate is not None
        pixels = self.normalise(images)
        patches = retina(pixels, regions, self.config.patch, self.config.scales, soft=soft)  # [N, k, C, g, g]
        return self.glimpse(patches, self.placing.places(regions).to(patches))

    def fuse(self, state: RamState, decision: Decision, features: Float[Tensor, "N width"]) -> RamState:
        glimpses = features.view_as(state.hidden)  # [B K, 256] -> [B, K, 256]
        return replace(state, hidden=(self.input(glimpses) + self.recurrent(state.hidden)).relu())

    def classify(self, state: RamState) -> Float[Tensor, "B classes"]:
        """The mean over the runs of their log-probabilities."""
        return self.classifier(state.hidden).log_softmax(2).mean(1)

    def locate(self, state: RamState) -> Decision:
        stopped = self.training or self.training_gradients
        hidden = state.hidden.detach() if stopped else state.hidden
        mean = self.locator(hidden).to(self.classifier.weight.dtype).tanh()  # [B, K, 2]; half precision is too coarse for places
        chosen = Normal(mean, self.config.deviation, validate_args=False)
        return gaussian_decision(self.placing, state, hidden, chosen, self._decide, stopped=stopped, bound=self.config.bound)

    def look_at(
        self, state: RamState, place: Float[Tensor, "B 2"], scale: Float[Tensor, "B"] | None = None, made: Made = "given"
    ) -> Decision:
        """All glimpses have one size, and their centres reach the edges of the image."""
        return given_decision(self.placing, place.to(self.classifier.weight), self.runs, made)

    def paper_macs(self, step: int) -> PaperMacs:
        """The linear layers that section 4 names, without biases; no place is chosen after the last step."""
        pixels, classes = self.glimpse.pixels.in_features, len(self.task.classes)
        glimpse = (pixels + 2) * BRANCH + 2 * BRANCH * WIDTH + 2 * WIDTH * WIDTH
        place = sum(layer.weight.numel() for layer in self.locator if isinstance(layer, nn.Linear)) if self.follows.reads_own else 0
        return PaperMacs("linear layers", self.config.evaluations * (step * glimpse + (step - 1) * place + WIDTH * classes))


def locator(inputs: int, hidden: int) -> nn.Sequential:
    """f: linear, or with one hidden layer of rectified units."""
    if not hidden:
        return nn.Sequential(nn.Linear(inputs, 2))
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, 2))
