"""AdaptiveNN: a glance at the resized image makes a map of what is known; fixations, which a policy places, read from it and write to it.

Wang, Yue, Yue et al., "Emulating human-like adaptive vision for efficient and flexible machine visual perception", Nature Machine
Intelligence 2025, https://arxiv.org/abs/2509.15333. The parts in the order in which a run uses them, for DeiT-S (width 384, 12 blocks, 8
heads, no class token, tokens of 16 px) on images of 288 px:

    glance      S_0 = the first 8 blocks of the glance net on the image resized to 112 px: a state map of 7 x 7 cells
    locate      a_t = sigmoid(policy net(S_{t-1})); the crop's upper left corner is a_t (288 - 112), between pixels
    focus       F_t = the focus net on the 112 px crop at a_t, with C_t added to its tokens
    read        C_t = MLP(LN(read at the tokens' places(7 x 7 depthwise convolution(LN(S_{t-1})))))
    write       S_t = S_{t-1} + sum over tokens of w F_t, where w = MLP(LN(F_t)) are a token's weights for 5 x 5 cells around its place
    classify    p_0: the last 4 blocks of the glance net, p_t: 4 blocks; each with a layer norm, a mean and a linear layer of its own
    stop        once the value net(S_t) is low: exits.py
    training    training.py

Reading, writing, policy and value net are shared between steps, but for their layer norms. A place is a = (row, column) in [0, 1] x [0, 1].

The paper's equations were not at hand here, so none is cited by number: this file follows the authors' code and weights
(https://github.com/LeapLabTHU/AdaptiveNN), which decide, among other things:
- The image is resized and cropped by bicubic interpolation without aligned corners and without a filter against aliasing. At the edge of
  the image, a crop interpolates with zeros (after normalisation) outside of it, and so does reading at the edge of the map.
- Tokens read between cells as if the cells tiled the image, but write as if the outermost cells lay on its edges. Weights for cells
  outside of the map are dropped.
- In training, no gradient passes from policy and value net into the map, and none through a place.

Where it departs from them:
- Images need not be square: the glance is stretched to a square, and a crop has the shape of the image and is stretched as well.
- The weights of all blocks start alike (normal, .02), where theirs in the classifiers of fixations have torch's default.
- Attacks see true gradients: the map and the place are not detached in eval mode. The cells that a token writes to are a hard choice
  without a gradient, but the place has one through the crop and through reading.
- Under another policy, policy and value net do not run, and no image exits by its value.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.layers.mlp import Mlp
from timm.models.vision_transformer import Block
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
    find_policy,
    resample,
    thumbnail,
)
from glimpsezoo_adaptivenn.config import AdaptiveNNConfig
from glimpsezoo_adaptivenn.costs import paper_macs

CONTEXT, AROUND = 7, 3  # sides of the depthwise convolutions: before reading, and of policy and value net
WIDER = 4  # the hidden units of an MLP, per unit

layer_norm = partial(nn.LayerNorm, eps=1e-6)


@dataclass(frozen=True, kw_only=True)
class AdaptiveNNState(State):
    """The state after t steps."""

    map: Float[Tensor, "B cells width"]
    """S_{t-1}: the state map, row by row. Zeros before the glance."""


@dataclass(frozen=True, kw_only=True)
class Located(Decision):
    """A place that the learned policy chose. An image that is finished has no region."""

    mean: Float[Tensor, "B 2"]
    """The predicted place (row, column) in [0, 1]."""


class Encoder(nn.Module):
    """Images -> tokens: a transformer without class token and without its last layer norm.

    rates: how often each of its blocks is skipped in training.
    """

    def __init__(self, config: AdaptiveNNConfig, channels: int, rates: Sequence[float]) -> None:
        super().__init__()
        self.side = config.patch // config.token
        self.embed = nn.Conv2d(channels, config.width, config.token, stride=config.token)
        self.position = nn.Parameter(torch.empty(1, self.side**2, config.width))
        nn.init.trunc_normal_(self.position, std=0.02)
        self.blocks = blocks(config, rates)

    def forward(
        self, images: Float[Tensor, "N C h w"], context: Float[Tensor, "N tokens width"] | None = None
    ) -> Float[Tensor, "N tokens width"]:
        """context is added to the tokens. Images of another size than the patches' have positions between those of the patches."""
        tokens = self.embed(images)  # [N, width, h / token, w / token]
        position = self.position
        if tokens.shape[2:] != (self.side, self.side):
            grid = position.transpose(1, 2).unflatten(2, (self.side, self.side))
            position = F.interpolate(grid, size=tokens.shape[2:], mode="bilinear").flatten(2).transpose(1, 2)
        tokens = tokens.flatten(2).transpose(1, 2) + position  # [N, tokens, width]
        return self.blocks(tokens if context is None else tokens + context)


class Classifier(nn.Module):
    """Tokens, or the cells of a state map -> logits."""

    def __init__(self, config: AdaptiveNNConfig, classes: int, rates: Sequence[float]) -> None:
        super().__init__()
        self.blocks, self.norm, self.head = blocks(config, rates), layer_norm(config.width), nn.Linear(config.width, classes)

    def forward(self, tokens: Float[Tensor, "N tokens width"]) -> Float[Tensor, "N classes"]:
        return self.head(self.norm(self.blocks(tokens)).mean(1))


class Reader(nn.Module):
    """What the tokens of a crop are told of the state map."""

    def __init__(self, config: AdaptiveNNConfig) -> None:
        super().__init__()
        self.norms, self.read_norms = layer_norms(config.width, config.glimpses), layer_norms(config.width, config.glimpses)
        self.mix = depthwise(config.width, CONTEXT)
        self.mlp = Mlp(config.width, WIDER * config.width)

    def forward(self, map: Float[Tensor, "B cells width"], regions: Regions, side: int, fixation: int) -> Float[Tensor, "N tokens width"]:
        """regions: of the crops, each of `side` x `side` tokens. fixation: how many there were before this one."""
        mixed = self.mix(as_grid(self.norms[fixation](map))).to(map)  # [B, width, cells' rows and columns]
        read = resample(mixed, regions, (side, side))  # [N, width, side, side]
        return self.mlp(self.read_norms[fixation](read.flatten(2).transpose(1, 2)))


class Writer(nn.Module):
    """Adds the tokens of a crop to the cells of the state map around their places."""

    def __init__(self, config: AdaptiveNNConfig) -> None:
        super().__init__()
        self.window = config.window
        self.norms = layer_norms(config.width, config.glimpses)
        self.mlp = Mlp(config.width, WIDER * config.width, config.window**2)

    def forward(
        self, map: Float[Tensor, "N cells width"], tokens: Float[Tensor, "N tokens width"], regions: Regions, fixation: int
    ) -> Float[Tensor, "N cells width"]:
        """The new state map. regions and fixation: as for `Reader`."""
        side = math.isqrt(map.shape[1])
        weights = self.mlp(self.norms[fixation](tokens))  # [N, tokens, window^2], row by row
        places = (centres(regions, math.isqrt(tokens.shape[1])).detach() + 1) / 2  # [N, tokens, 2] in [0, 1]
        nearest = (places * (side - 1) + 0.5).floor().long()  # as (x, y)
        offset = torch.arange(self.window, device=map.device) - (self.window - 1) // 2
        row, column = (offset.repeat_interleave(self.window), offset.repeat(self.window))
        column, row = nearest[:, :, :1] + column, nearest[:, :, 1:] + row  # [N, tokens, window^2]
        inside = (column >= 0) & (column < side) & (row >= 0) & (row < side)
        cell = row.clamp(0, side - 1) * side + column.clamp(0, side - 1)
        spread = weights.new_zeros(*tokens.shape[:2], side**2).scatter_add(2, cell, weights * inside)  # [N, tokens, cells]
        return map + spread.transpose(1, 2) @ tokens


class MapNet(nn.Module):
    """The state map -> `outputs` numbers. The policy and the value network have this shape."""

    def __init__(self, config: AdaptiveNNConfig, outputs: int) -> None:
        super().__init__()
        cells, hidden, steps = (config.patch // config.token) ** 2, config.locator_hidden, config.glimpses
        self.norms = layer_norms(config.width, steps)
        self.mix = depthwise(config.width, AROUND)
        self.narrow = nn.Conv2d(config.width, config.locator_channels, 1, bias=False)
        self.first = nn.Linear(config.locator_channels * cells, hidden, bias=False)
        self.first_norms = layer_norms(hidden, steps)
        self.second = nn.Linear(hidden, hidden // 2, bias=False)
        self.second_norms = layer_norms(hidden // 2, steps)
        self.out = nn.Linear(hidden // 2, outputs, bias=False)

    def forward(self, map: Float[Tensor, "N cells width"], fixation: int) -> Float[Tensor, "N outputs"]:
        """fixation: the number of those before, from 0."""
        grid = as_grid(self.norms[fixation](map))
        features = F.gelu(self.narrow(F.gelu(self.mix(grid)))).flatten(1)  # [N, channels cells]
        features = F.gelu(self.first_norms[fixation](self.first(features)))
        return self.out(F.gelu(self.second_norms[fixation](self.second(features))))


class AdaptiveNN(GlimpseModel[AdaptiveNNState]):
    """A glance, then fixations. Step 1 is the glance; the paper's t-th fixation is step t + 1.

    Raises `GlimpseZooError` for images smaller than a patch.
    """

    sees = "lowres"

    def __init__(self, config: AdaptiveNNConfig, task: Task) -> None:
        super().__init__()
        self.config, self.task, self.steps = config, task, config.glimpses + 1
        self.stochastic = config.decide == "sample"
        self.surrogate = "reparametrised places" if self.stochastic else None  # otherwise a place has a gradient of its own
        height, width = task.image_size
        if config.patch > min(height, width):
            raise GlimpseZooError(
                f"adaptivenn: expected patch to fit into images of {height} x {width} px, got {config.patch}: set it smaller"
            )
        classes, rates = len(task.classes), [config.drop_path * block / (config.depth - 1) for block in range(config.depth)]
        self.normalise = Normalise(task)
        self.glance = Encoder(config, task.channels, rates[: -config.head_depth])
        self.focus = Encoder(config, task.channels, rates)
        last = [rates[-config.head_depth :]] + config.glimpses * [config.head_depth * [config.drop_path]]
        self.classifiers = nn.ModuleList(Classifier(config, classes, each) for each in last)  # of the glance, then of each fixation
        self.focus_classifier = Classifier(config, classes, ())  # in training only, but part of the released weights
        self.reader, self.writer = Reader(config), Writer(config)
        self.locator, self.value = MapNet(config, 2), MapNet(config, 1)
        self.follow(find_policy(config.policy))

    def start(self, images: Float[Tensor, "B C H W"], noise: Noise) -> tuple[AdaptiveNNState, Decision]:
        nothing = images.new_zeros(len(images), self.focus.side**2, self.config.width)
        return AdaptiveNNState(noise=noise, map=nothing), Decision.certain(Regions.whole_image(images))

    def sense(self, images: Float[Tensor, "B C H W"], state: AdaptiveNNState, regions: Regions) -> Float[Tensor, "N tokens width"]:
        pixels, size = self.normalise(images), (self.config.patch, self.config.patch)
        if state.step == 0:
            return self.glance(regions.images_of(thumbnail(pixels, size, "bicubic")))
        crops = resample(pixels, regions, size, mode="bicubic")
        return self.focus(crops, self.reader(state.map, regions, self.focus.side, state.step - 1))

    def fuse(self, state: AdaptiveNNState, decision: Decision, features: Float[Tensor, "N tokens width"]) -> AdaptiveNNState:
        if len(decision.regions) != decision.regions.batch:
            got = f"{len(decision.regions)} for {decision.regions.batch} images"
            raise GlimpseZooError(f"AdaptiveNN looks at one region per image, got {got}: give one each")
        if state.step == 0:
            return replace(state, map=features.to(state.map))
        written = self.writer(state.map, features, decision.regions, state.step - 1)
        return replace(state, map=written.to(state.map))

    def classify(self, state: AdaptiveNNState) -> Float[Tensor, "B classes"]:
        return self.classifiers[state.step - 1](state.map)

    def locate(self, state: AdaptiveNNState) -> Decision:
        map = state.map.detach() if self.training or self.training_gradients else state.map
        with torch.autocast(map.device.type, enabled=False):  # half precision is too coarse for places
            mean = self.locator(map, state.step - 1).sigmoid()
            located = Located(
                regions=self.regions_at(mean.detach() if self.training else mean),
                made="regressed",
                log_prob=mean.new_zeros(len(mean)),
                entropy=mean.new_zeros(len(mean)),
                mean=mean,
            )
            if self.config.decide == "sample":
                located = self.drawn(located, state, self.config.deviation)
            if self.training or self.policy != "learned" or state.step > len(self.config.exits):
                return located
            worth = self.value(map, state.step - 1).squeeze(1) > self.config.exits[state.step - 1]  # [B]
        return replace(located, regions=located.regions.keep(worth))

    def look_at(
        self, state: AdaptiveNNState, place: Float[Tensor, "B 2"], scale: Float[Tensor, "B"] | None = None, made: Made = "given"
    ) -> Decision:
        """The decision to look at a crop, which lies inside the image. All crops have one size."""
        return Decision.certain(self.regions_at(place.to(state.map).flip(1)), made)

    def drawn(self, located: Located, state: AdaptiveNNState, deviation: float) -> Located:
        """The decision at a place drawn around the predicted one and clamped to [0, 1], with the log-probability of the clamped place."""
        gaussian = torch.distributions.Normal(located.mean, deviation, validate_args=False)
        place = (located.mean + deviation * state.noise.normal(state.step, 2).to(located.mean)).clamp(0, 1)
        return replace(
            located,
            regions=self.regions_at(place.detach() if self.training else place),
            made="sampled",
            log_prob=gaussian.log_prob(place.detach()).sum(1),
            entropy=gaussian.entropy().sum(1),
        )

    def regions_at(self, place: Float[Tensor, "B 2"]) -> Regions:
        """The crops at places (row, column) in [0, 1], exactly: their corners lie between pixels."""
        scale = self.config.patch / self.task.image_size[1]
        return Regions.one_each(((2 * place - 1) * (1 - scale)).flip(1), scale, level=1)

    def paper_macs(self, step: int) -> PaperMacs:
        chooses = self.follows.reads_own
        return PaperMacs("paper", paper_macs(self.config, self.task.channels, len(self.task.classes), step, chooses=chooses))


def centres(regions: Regions, side: int) -> Float[Tensor, "N tokens 2"]:
    """The centres (x, y in [-1, 1] of the image) of `side` x `side` equal parts that tile each region, row by row."""
    axis = (2 * torch.arange(side, device=regions.centre.device) + 1).to(regions.centre) / side - 1
    parts = torch.cartesian_prod(axis, axis).flip(1)  # [tokens, 2] as (x, y)
    return regions.centre[:, None] + regions.half[:, None] * parts


def blocks(config: AdaptiveNNConfig, rates: Sequence[float]) -> nn.Sequential:
    """Transformer blocks; each is skipped in training as often as its rate says."""
    norm: Any = layer_norm  # timm wants a class
    made = [Block(config.width, config.attention_heads, qkv_bias=True, drop_path=rate, norm_layer=norm) for rate in rates]
    for layer in (each for block in made for each in block.modules() if isinstance(each, nn.Linear)):
        nn.init.trunc_normal_(layer.weight, std=0.02)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(*made)


def layer_norms(width: int, count: int) -> nn.ModuleList:
    """One layer norm per fixation."""
    return nn.ModuleList(layer_norm(width) for _ in range(count))


def depthwise(width: int, side: int) -> nn.Conv2d:
    """A convolution of each channel by itself, which keeps the size of the map."""
    return nn.Conv2d(width, width, side, padding=side // 2, groups=width, bias=False)


def as_grid(map: Float[Tensor, "N cells width"]) -> Float[Tensor, "N width side side"]:
    """The cells as rows and columns."""
    side = math.isqrt(map.shape[1])
    return map.transpose(1, 2).unflatten(2, (side, side))
