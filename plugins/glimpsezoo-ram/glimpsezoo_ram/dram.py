"""DRAM: Ba, Mnih & Kavukcuoglu, "Multiple Object Recognition with Visual Attention" (2015): RAM with two LSTMs and a context.

Step n takes the paper's n-th glimpse. With the patches x_n around l_n (section 3):

    start       r2_0 = C(I_coarse), r1_0 = 0                        (context network)
    sense       g_n = G_image(x_n) * G_loc(l_n), element by element (glimpse network, equation 1)
    fuse        r1_n = LSTM_1(g_n, r1_{n-1}),  r2_n = LSTM_2(r1_n, r2_{n-1})   (recurrent network, equations 2 and 3)
    locate      l_{n+1} ~ N(mean, deviation^2), both of E(r2_n)     (emission network)
    classify    softmax(O(r1_n))                                    (classification network)

The first place comes from the context. The classifier reads only LSTM 1, which never sees the context: it must use the glimpses.
In testing, `evaluations` runs per image are averaged, as in RAM. Training is in training.py.

Where this departs from the paper, or decides what the paper leaves open:
- The data have one label per image, so it is read after the last glimpse; the paper also reads sequences of labels.
- All sizes are settings, and their defaults are small enough for a CPU. Convolutions are valid, 5 x 5, 3 x 3 and 3 x 3 px; the second one
  of the context network has stride 2.
- G_loc has one hidden layer and a linear output whose bias starts at 1, so that products start near G_image.
- The context is the hidden state of LSTM 2, whose cell starts at 0.
- The policy chooses its deviation between half and twice the setting, so that the entropy in the loss has a gradient.
- LSTM 2 also runs after the last glimpse. Under another policy, it and the context network do not run at all.
- Places, patches, and the gradients of attacks are as in RAM (model.py).
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Normal

from glimpsezoo import (
    Decision,
    GlimpseZooError,
    Made,
    Noise,
    Normalise,
    PaperMacs,
    Policy,
    Regions,
    State,
    Task,
    find_policy,
    retina,
    thumbnail,
)
from glimpsezoo_ram.config import DramConfig
from glimpsezoo_ram.policy import InRuns, Placing, gaussian_decision, given_decision

PLACE = 128  # units of the hidden layers of G_loc and of E


@dataclass(frozen=True, kw_only=True)
class DramState(State):
    """The state of K runs per image."""

    hidden: Float[Tensor, "B K 2 width"]
    """r1 and r2."""
    cell: Float[Tensor, "B K 2 width"]
    """The cells of LSTM 1 and of LSTM 2."""


class DRAM(InRuns[DramState]):
    """The deep recurrent attention model. Raises `GlimpseZooError` if a patch or the coarse image does not fit into the image."""

    padding = "zeros after normalisation"

    def __init__(self, config: DramConfig, task: Task) -> None:
        super().__init__()
        self.config, self.task, self.steps = config, task, config.glimpses
        width, shorter = config.width, min(task.image_size)  # units; the shorter side in px
        self.stochastic = config.decide == "sample"
        self.surrogate = "reparametrised places, straight-through bilinear crop"
        for key, side in (("patch", config.patch), ("coarse", config.coarse)):
            if side > shorter:
                raise GlimpseZooError(f"dram: expected {key} to fit into images with a side of {shorter} px, got {side}: set it smaller")
        self.placing = Placing(task.image_size, config.patch << (config.scales - 1))
        self.normalise = Normalise(task)
        self.image = convolutions(config.scales * task.channels, config.filters, config.patch, width, stride=1)  # G_image
        embedding = nn.Linear(PLACE, width)
        nn.init.ones_(embedding.bias)
        self.place = nn.Sequential(nn.Linear(2, PLACE), nn.ReLU(), embedding)  # G_loc
        self.context = convolutions(task.channels, config.filters, config.coarse, width, stride=2)
        self.lower, self.upper = nn.LSTMCell(width, width), nn.LSTMCell(width, width)  # LSTM 1 and 2
        self.emission = nn.Sequential(nn.Linear(width, PLACE), nn.ReLU(), nn.Linear(PLACE, 3))
        self.classifier = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, len(task.classes)))
        self.baseline = nn.Linear(width, 1)  # in training alone
        self.follow(find_policy(config.policy))

    @property
    def first_choice(self) -> int:
        return 0  # the first glimpse has a place as well, whether or not the context chooses it

    def follow(self, policy: Policy) -> None:
        super().follow(policy)
        self.sees = "lowres" if policy.reads_own else "none"  # of the context, which only the model's own choice reads

    def start(self, images: Float[Tensor, "B C H W"], noise: Noise) -> tuple[DramState, Decision]:
        zeros = images.new_zeros(len(images), self.runs, 2, self.config.width)
        state = DramState(noise=noise, hidden=zeros, cell=zeros)
        if not self.follows.reads_own:
            return state, self.look_at(state, images.new_full((len(images), 2), 0.5))
        coarse = self.config.coarse
        context = self.context(thumbnail(self.normalise(images), (coarse, coarse), "pixels")).to(zeros)  # [B, width]
        state = replace(state, hidden=torch.stack([zeros[:, :, 0], context[:, None].expand(-1, self.runs, -1)], 2))
        return state, self.locate(state)

    def sense(self, images: Float[Tensor, "B C H W"], state: DramState, regions: Regions) -> Float[Tensor, "N width"]:
        soft = torch.is_grad_enabled() and not self.training and self.surrogate is not None
        pixels = self.normalise(images)
        patches = retina(pixels, regions, self.config.patch, self.config.scales, soft=soft)  # [N, k, C, g, g]
        return self.image(patches.flatten(1, 2)) * self.place(self.placing.places(regions).to(patches))

    def fuse(self, state: DramState, decision: Decision, features: Float[Tensor, "N width"]) -> DramState:
        (first, second), (cell, other) = (part.flatten(0, 1).unbind(1) for part in (state.hidden, state.cell))  # [B K, width] each
        first, cell = self.lower(features, (first, cell))
        if self.follows.reads_own:
            second, other = self.upper(first, (second, other))
        hidden, cells = (torch.stack(parts, 1).view_as(state.hidden).to(state.hidden) for parts in ((first, second), (cell, other)))
        return replace(state, hidden=hidden, cell=cells)

    def classify(self, state: DramState) -> Float[Tensor, "B classes"]:
        """The mean over the runs of their log-probabilities."""
        return self.classifier(state.hidden[:, :, 0]).log_softmax(2).mean(1)

    def locate(self, state: DramState) -> Decision:
        evidence = state.hidden[:, :, 1]  # [B, K, width]
        emitted = self.emission(evidence).to(state.hidden).tanh()  # [B, K, 3]; half precision is too coarse for places
        chosen = Normal(emitted[..., :2], self.config.deviation * 2 ** emitted[..., 2:], validate_args=False)
        stopped = self.training or self.training_gradients
        return gaussian_decision(self.placing, state, evidence, chosen, self._decide, stopped=stopped)

    def look_at(
        self, state: DramState, place: Float[Tensor, "B 2"], scale: Float[Tensor, "B"] | None = None, made: Made = "given"
    ) -> Decision:
        """All glimpses have one size, and their centres reach the edges of the image."""
        return given_decision(self.placing, place.to(state.hidden), self.runs, made)

    def paper_macs(self, step: int) -> PaperMacs:
        """Convolutions, LSTMs and linear layers, without biases."""
        lstm = 8 * self.config.width**2  # four gates, each of an input and a state
        glimpse = macs_of(self.image, self.config.patch) + macs_of(self.place) + lstm
        macs = step * glimpse + macs_of(self.classifier)
        context = 0
        if self.follows.reads_own:  # the context is shared by the runs
            macs += step * (lstm + macs_of(self.emission))
            context = macs_of(self.context, self.config.coarse)
        return PaperMacs("convolutions and linear layers", context + self.config.evaluations * macs)


def macs_of(network: nn.Sequential, side: int = 0) -> int:
    """MACs of convolutions, for images of `side` px, and of linear layers, without biases."""
    macs = 0
    for layer in network:
        if isinstance(layer, nn.Conv2d):
            side = (side - layer.kernel_size[0]) // layer.stride[0] + 1
            macs += side**2 * layer.weight.numel()
        elif isinstance(layer, nn.Linear):
            macs += layer.weight.numel()
    return macs


def convolutions(channels: int, filters: int, side: int, width: int, *, stride: int) -> nn.Sequential:
    """Three rectified convolutions of images of `side` px, the second with a stride, and a rectified linear layer of `width` units."""
    last = (side - 4 - 3) // stride + 1 - 2
    return nn.Sequential(
        nn.Conv2d(channels, filters, 5), nn.ReLU(), nn.Conv2d(filters, filters, 3, stride), nn.ReLU(),
        nn.Conv2d(filters, 2 * filters, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * filters * last**2, width), nn.ReLU(),
    )  # fmt: skip
