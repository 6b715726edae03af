"""GFNet: a glance at the resized image, then crops of its pixels at places that a policy chooses, until the model is sure.

Wang, Lv, Huang, Song, Yang & Huang, "Glance and Focus: a Dynamic Approach to Reducing Spatial Redundancy in Image Classification",
NeurIPS 2020, https://arxiv.org/abs/2010.05300. The parts of its section 3, in the order in which a run uses them:

    x_1 = the image resized to P x P;  x_t = the P x P crop at place l_t                    glance; focus
    e_1 = f_G(x_1),  e_t = f_L(x_t)             feature maps of the global and of the local encoder; their means are the features
    p_t = f_C(e_1 .. e_t)                       a GRU and a linear layer, or a linear layer per number of looks on the features side by side
    l_{t+1} ~ N(pi(e_1 .. e_t), s^2)            pi: layers, a GRU of its own, a linear layer, a sigmoid; s = .1; the mean in testing
    stop at the first t where max p_t >= eta_t  exits.py
    the three stages of training                training.py

A place is a = (row, column) in [0, 1] x [0, 1]; the crop's upper left pixel is floor(a (H - P)), floor(a (W - P)), so that it never
reaches outside the image. A region holds the centre of the crop that was taken, exactly.

What the authors' code (https://github.com/blackfeather-wang/GFNet-Pytorch) decides where the paper leaves it open, and this file follows:
- The image is resized with aligned corners, and without a filter against aliasing.
- With MobileNetV3, EfficientNet and RegNet, the first look is classified by the global encoder's own linear layer (`glance_head`).
- In training, no gradient passes from the policy into the feature map, and none through a place.

Where it departs from them:
- Glimpses are normalised after resizing and cropping. Both are linear with weights that sum to one, so the result is the same.
- The policy and the classifier are GRU cells instead of sequences of one step: the same numbers.
- Attacks see true gradients: map and place are not detached in eval mode, and a crop is differentiated as if it were bilinear at the place
  (with gradients on; the crop is the same).
- Under another policy, the policy network does not run. If a decision of the learned policy is overridden by one of another kind, the
  policy's GRU takes the map in `fuse`, as it would have.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from glimpsezoo import (
    Decision,
    GlimpseModel,
    GlimpseZooError,
    Made,
    Noise,
    Normalise,
    PaperMacs,
    Regions,
    State,
    Task,
    crop,
    find_policy,
    straight_through_crop,
    thumbnail,
)
from glimpsezoo_gfnet.backbones import Encoder, Features
from glimpsezoo_gfnet.config import GFNetConfig
from glimpsezoo_gfnet.costs import Parts, paper_macs, parts_of

ENTRANCE = 2048  # units of the first layer of the policy with locator=linear
CHANNELS = 32  # of its convolution with locator=conv


@dataclass(frozen=True, kw_only=True)
class GFNetState(State):
    """The state after t looks. width: of a feature vector; C x h x w: the shape of a feature map."""

    features: Float[Tensor, "B n"]
    """With a GRU, the last feature vector (n = width); with concatenation, all of them side by side (n = t width)."""
    memory: Float[Tensor, "B hidden"]
    """The state of the classifier's GRU; no units with concatenation."""
    map: Float[Tensor, "B C h w"]
    """The feature map of the last look, for the policy."""
    policy_memory: Float[Tensor, "B locator_hidden"]
    """The state of the policy's GRU before it takes `map`."""


@dataclass(frozen=True, kw_only=True)
class Located(Decision):
    """A place that the learned policy chose."""

    memory: Float[Tensor, "B locator_hidden"]
    """The state of the policy's GRU from which it was predicted."""
    mean: Float[Tensor, "B 2"]
    """The predicted place (row, column) in [0, 1]."""


class Locator(nn.Module):
    """pi, and the value of a state for its training (critic).

    map_shape: C, h, w of a feature map. A map goes through layers to `hidden` units, and a GRU cell takes it.
    """

    def __init__(self, map_shape: tuple[int, ...], config: GFNetConfig) -> None:
        super().__init__()
        channels, height, width = map_shape
        hidden = config.locator_hidden
        if config.locator == "conv":
            entrance: list[nn.Module] = [nn.Conv2d(channels, CHANNELS, 1, bias=False), nn.ReLU(), nn.Flatten()]
            units = CHANNELS * height * width
        else:
            entrance = [nn.Flatten(), nn.Linear(channels * height * width, ENTRANCE), nn.ReLU()]
            units = ENTRANCE
        self.encoder = nn.Sequential(*entrance, nn.Linear(units, hidden), nn.ReLU())
        self.cell = nn.GRUCell(hidden, hidden)
        self.actor = nn.Linear(hidden, 2)
        self.critic = nn.Linear(hidden, 1)  # in training only, but part of the released weights

    def remember(self, map: Float[Tensor, "B C h w"], memory: Float[Tensor, "B hidden"]) -> Float[Tensor, "B hidden"]:
        """The state of the GRU after it took a feature map."""
        return self.cell(self.encoder(map), memory)

    def mean(self, memory: Float[Tensor, "B hidden"]) -> Float[Tensor, "B 2"]:
        """The predicted place (row, column) in [0, 1]."""
        return self.actor(memory).to(memory.dtype).sigmoid()  # half precision is too coarse for places


class GFNet(GlimpseModel[GFNetState]):
    """Glance and focus. Step 1 is the glance, so the paper's T is the number of steps.

    Raises `GlimpseZooError` for an unknown backbone, for glimpses of a size that it cannot take, and for images smaller than a patch.
    """

    sees = "lowres"

    def __init__(self, config: GFNetConfig, task: Task) -> None:
        super().__init__()
        self.config, self.task = config, task
        self.steps, chooses, drawn = config.glimpses, config.glimpses > 1, config.decide == "sample"
        self.stochastic = chooses and drawn
        bilinear = "straight-through bilinear crop"
        places = f"reparametrised places, {bilinear}" if drawn else f"{bilinear} at the predicted place"
        self.surrogate = places if chooses else None
        height, width = task.image_size
        if config.patch > min(height, width):
            raise GlimpseZooError(f"gfnet: expected patch to fit into images of {height} x {width} px, got {config.patch}: set it smaller")
        classes = len(task.classes)
        self.normalise = Normalise(task)
        self.glance = Encoder(config.backbone, task.channels, classes, config.patch)  # f_G
        self.focus = Encoder(config.backbone, task.channels, classes, config.patch)  # f_L
        features = self.glance.width
        if config.classifier == "gru":
            self.memory = nn.GRUCell(features, config.hidden)
            self.classifiers = nn.ModuleList([nn.Linear(config.hidden, classes)])
        else:  # the k-th is for k + 2 looks
            self.classifiers = nn.ModuleList(nn.Linear(count * features, classes) for count in range(2, config.glimpses + 1))
        self.locator = Locator(self.glance.map_shape, config)
        self._parts: Parts | None = None
        self.follow(find_policy(config.policy))

    def start(self, images: Float[Tensor, "B C H W"], noise: Noise) -> tuple[GFNetState, Decision]:
        batch = len(images)
        units = self.config.hidden if self.config.classifier == "gru" else 0
        state = GFNetState(
            noise=noise,
            features=images.new_zeros(batch, 0),
            memory=images.new_zeros(batch, units),
            map=images.new_zeros(batch, *self.glance.map_shape),
            policy_memory=images.new_zeros(batch, self.config.locator_hidden),
        )
        return state, Decision.certain(Regions.whole_image(images))

    def sense(self, images: Float[Tensor, "B C H W"], state: GFNetState, regions: Regions) -> Features:
        side = self.config.patch
        if state.step == 0:
            resized = thumbnail(images, (side, side), self.config.resize, align_corners=True)
            return self.glance(self.normalise(regions.images_of(resized)))
        soft = torch.is_grad_enabled() and not self.training and self.surrogate is not None
        glimpses = (straight_through_crop if soft else crop)(images, regions, side)
        return self.focus(self.normalise(glimpses))

    def fuse(self, state: GFNetState, decision: Decision, features: Features) -> GFNetState:
        if len(decision.regions) != decision.regions.batch:
            got = f"{len(decision.regions)} for {decision.regions.batch} images"
            raise GlimpseZooError(f"GFNet looks at one region per image, got {got}: give one each")
        policy_memory = state.policy_memory
        if isinstance(decision, Located):
            policy_memory = decision.memory
        elif state.step and self.follows.reads_own:
            policy_memory = self.locator.remember(state.map, policy_memory)
        map = features.map.detach() if self.training or self.training_gradients else features.map
        seen = replace(state, map=map, policy_memory=policy_memory)
        if self.config.classifier == "gru":
            return replace(seen, features=features.vector, memory=self.memory(features.vector, state.memory).to(state.memory))
        return replace(seen, features=torch.cat([state.features, features.vector], 1))

    def classify(self, state: GFNetState) -> Float[Tensor, "B classes"]:
        of_encoder = state.step == 1 and self.config.glance_head
        recurrent = self.config.classifier == "gru" and not of_encoder
        return self.head_of(state.step)(state.memory if recurrent else state.features)

    def locate(self, state: GFNetState) -> Decision:
        memory = self.locator.remember(state.map, state.policy_memory).to(state.policy_memory)
        mean = self.locator.mean(memory)
        located = Located(
            regions=self.regions_at(mean),
            made="regressed",
            log_prob=mean.new_zeros(len(mean)),
            entropy=mean.new_zeros(len(mean)),
            memory=memory,
            mean=mean,
        )
        return self.drawn(located, state) if self.config.decide == "sample" else located

    def drawn(self, located: Located, state: GFNetState) -> Located:
        """The decision at a place drawn around the predicted one and clamped to [0, 1], with the log-probability of the clamped place."""
        gaussian = torch.distributions.Normal(located.mean, self.config.deviation)
        draw = state.noise.normal(state.step, 2).to(located.mean)
        place = (located.mean + self.config.deviation * draw).clamp(0, 1)
        stopped = self.training or self.training_gradients
        return replace(
            located,
            regions=self.regions_at(place.detach() if stopped else place),
            made="sampled",
            log_prob=gaussian.log_prob(place.detach()).sum(1),
            entropy=gaussian.entropy().sum(1),
        )

    def look_at(
        self, state: GFNetState, place: Float[Tensor, "B 2"], scale: Float[Tensor, "B"] | None = None, made: Made = "given"
    ) -> Decision:
        """All crops have one size, and lie inside the image."""
        return Decision.certain(self.regions_at(place.flip(1).to(self.locator.actor.weight)), made)  # rows first

    def regions_at(self, place: Float[Tensor, "B 2"]) -> Regions:
        """The crops at places (row, column) in [0, 1]: their whole pixels, with the gradient of the exact place."""
        sides = place.new_tensor(self.task.image_size)  # height, width
        exact = place * (sides - self.config.patch)
        corner = exact + (exact.floor() - exact).detach()
        centre = 2 * (corner + self.config.patch / 2) / sides - 1
        height, width = self.task.image_size
        return Regions.one_each(centre.flip(1), self.config.patch / width, level=1, ratio=width / height)

    def head_of(self, look: int) -> nn.Linear:
        """The linear layer that classifies after `look` looks."""
        if look == 1 and self.config.glance_head:
            return self.glance.head
        return self.classifiers[0 if self.config.classifier == "gru" else look - 2]  # type: ignore[return-value]

    def paper_macs(self, step: int) -> PaperMacs:
        if self._parts is None:
            self._parts = parts_of(self)
        parts = self._parts if self.follows.reads_own else self._parts._replace(policy=0)
        return PaperMacs("paper", paper_macs(parts, step))
