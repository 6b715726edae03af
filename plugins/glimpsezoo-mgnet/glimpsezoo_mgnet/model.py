"""MGNet: a classifier that sees an image through a few low-resolution glimpses, each placed by what the ones before showed.

Tan, Dong & Ma, "Multi-Glimpse Network: A Robust and Efficient Classification Architecture based on Recurrent Downsampled Attention",
BMVC 2021, https://arxiv.org/abs/2111.02018. Equations, by number:

    (1) A = [[a^s, 0, a^x], [0, a^s, a^y]]           a glimpse-region; the first is the whole image (1, 0, 0)
    (2) x = A (x^g, 1)                               its sampling grid, bilinear, H/M x W/M points
    (3) H_t = [h'_1 .. h'_t],  h' = [h, a^s, a^x, a^y]
        E_t = softmax(H W^q (H W^k)^T / sqrt(d)) H W^v W^o,   F_t = ReLU(LayerNorm(E_t)[t])
    (4) [a^s, a^x, a^y] = Phi(sigma(f_l(F_t)); s);  a^s <- a^s (a_max - a_min) + a_min;  a^xy <- (2 a^xy - 1)(1 - a^s)
    (5) Phi(x; s) = x, with the gradient times s     in training only, like the stop at the positional code: attacks see true gradients
    (6), (7), (8) the losses: training.py

Where it departs from the paper, and why:
- Only row t of E_t is used (LayerNorm, W^o and ReLU act row by row). So the state caches keys and values, and each step computes only
  that row: the same output at 4 d^2 + 2 t d MACs per step. What the paper counts is in costs.py.
- The paper's H/M is rounded: 224 / (7/3) is 96, where floor division in floating point gives 95.
- The glimpse is normalised after sampling, instead of the image before: the result is the same, because bilinear weights sum to one, and
  it takes fewer operations.
- Other policies replace the locator. Unless they choose sizes themselves, regions have the middle size (a_min + a_max) / 2.
- Linear layers have torch's default initialisation. The paper does not specify it; the authors' code uses Kaiming's rule, also in the
  attention.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
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
    find_policy,
    resample,
)
from glimpsezoo_mgnet.backbones import create_backbone
from glimpsezoo_mgnet.config import MGNetConfig
from glimpsezoo_mgnet.costs import backbone_macs, paper_macs

CODE = 3  # a^s, a^x, a^y: the positional code at the end of every h'


@dataclass(frozen=True, kw_only=True)
class MGNetState(State):
    """The state after t glimpses. c: the width of the backbone's feature; d = c + 3."""

    keys: Float[Tensor, "B t d"]
    """One row per glimpse."""
    values: Float[Tensor, "B t d"]
    """One row per glimpse."""
    feature: Float[Tensor, "B c"]
    """h_t, of the last glimpse."""
    fused: Float[Tensor, "B d"]
    """F_t."""


class MGNet(GlimpseModel[MGNetState]):
    """Multi-Glimpse Network. With glimpses=1 and downsample=1 it is "FF-Net", the paper's baseline.

    Raises `GlimpseZooError` for an unknown backbone, and for glimpses of a size that the backbone cannot take.
    """

    def __init__(self, config: MGNetConfig, task: Task) -> None:
        super().__init__()
        self.config, self.task = config, task
        self.steps, self.sizes = config.glimpses, config.scale
        self.sees = "lowres" if config.downsample > 1 else "full image"
        self.glimpse_size = glimpse_size(task.image_size, config.downsample)

        self.normalise = Normalise(task)
        self.backbone, width = create_backbone(config.backbone, task.channels, self.glimpse_size, maxpool=config.maxpool)
        d, classes = width + CODE, len(task.classes)
        self.query, self.key, self.value, self.out = (nn.Linear(d, d, bias=config.biases) for _ in range(4))
        self.norm = nn.LayerNorm(d)
        self.locator = nn.Linear(d, CODE, bias=config.biases)
        self.global_classifier = nn.Linear(d, classes, bias=config.biases)
        # Used only in training, but part of the checkpoint. Without its loss (alpha = 0) there is no such classifier.
        self.glimpse_classifier = nn.Linear(width, classes, bias=config.biases) if config.alpha > 0 else None
        self._backbone_macs: int | None = None
        self.follow(find_policy(config.policy))

    def start(self, images: Float[Tensor, "B C H W"], noise: Noise) -> tuple[MGNetState, Decision]:
        batch, d = len(images), self.norm.normalized_shape[0]
        nothing = images.new_zeros(batch, 0, d)
        state = MGNetState(
            noise=noise,
            keys=nothing,
            values=nothing,
            feature=images.new_zeros(batch, d - CODE),
            fused=images.new_zeros(batch, d),
        )
        return state, Decision.certain(Regions.whole_image(images))

    def sense(self, images: Float[Tensor, "B C H W"], state: MGNetState, regions: Regions) -> Float[Tensor, "N c"]:
        """h of every region: the backbone's feature of the glimpse."""
        glimpses = resample(images, regions, self.glimpse_size, align_corners=True)  # equations 1 and 2
        return self.backbone(self.normalise(glimpses))

    def fuse(self, state: MGNetState, decision: Decision, features: Float[Tensor, "B c"]) -> MGNetState:
        """The last row of equation 3, computed from the cached keys and values."""
        regions = decision.regions
        if len(regions) != regions.batch:
            raise GlimpseZooError(f"MGNet looks at one region per image, got {len(regions)} for {regions.batch} images: give one each")
        scale, centre = regions.scale[:, None], regions.centre
        if self.training or self.training_gradients:
            scale, centre = scale.detach(), centre.detach()  # the gradient stops here in training, but not in attacks
        h = torch.cat([features, scale, centre], 1)  # [B, d]
        keys = torch.cat([state.keys, self.key(h)[:, None]], 1)  # [B, t, d]
        values = torch.cat([state.values, self.value(h)[:, None]], 1)  # [B, t, d]
        mixed = F.scaled_dot_product_attention(self.query(h)[:, None], keys, values)  # [B, 1, d]
        fused = F.relu(self.norm(self.out(mixed.squeeze(1))))  # [B, d]
        return replace(state, keys=keys, values=values, feature=features, fused=fused)

    def classify(self, state: MGNetState) -> Float[Tensor, "B classes"]:
        return self.global_classifier(state.fused)

    def locate(self, state: MGNetState) -> Decision:
        """Equation 4; the range of a^x and a^y keeps the region inside the image.

        It is computed in full precision also under mixed precision, which would round places by up to a pixel of 224.
        """
        low, high = self.config.scale
        with torch.autocast(state.fused.device.type, enabled=False):
            raw = self.locator(state.fused.to(self.locator.weight)).sigmoid()  # [B, 3]: s, x, y
        if self.training or self.training_gradients:
            raw = rescale_gradient(raw, self.config.gradient_scale)
        return self.look_at(state, raw[:, 1:], raw[:, 0] * (high - low) + low, "regressed")

    def look_at(
        self, state: MGNetState, place: Float[Tensor, "B 2"], scale: Float[Tensor, "B"] | None = None, made: Made = "given"
    ) -> Decision:
        """The last part of equation 4. Without a scale, the region has the middle size."""
        place = place.to(self.locator.weight)  # not of the state: half precision is too coarse for places
        scale = place.new_full((len(place),), sum(self.config.scale) / 2) if scale is None else scale.to(place)
        centre = (2 * place - 1) * (1 - scale[:, None])  # [B, 2]
        return Decision.certain(Regions.one_each(centre, scale), made)

    def paper_macs(self, step: int) -> PaperMacs:
        """The convention of tables 1, 2 and 4 for a run with `step` glimpses. It counts the locator under every policy."""
        if self._backbone_macs is None:
            self._backbone_macs = backbone_macs(self.backbone, self.task.channels, self.glimpse_size)
        d = self.norm.normalized_shape[0]
        return PaperMacs("paper", paper_macs(self._backbone_macs, d, len(self.task.classes), step))


def glimpse_size(image_size: tuple[int, int], downsample: float) -> tuple[int, int]:
    """H/M and W/M, rounded to whole pixels.

    >>> glimpse_size((224, 224), 7 / 3)
    (96, 96)
    """
    height, width = (max(1, round(side / downsample)) for side in image_size)
    return height, width


class _RescaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.factor * gradients[0], None


def rescale_gradient(x: Float[Tensor, "*s"], factor: float) -> Float[Tensor, "*s"]:
    """Equation 5: `x` itself; its gradient is multiplied by `factor` in the backward pass."""
    return _RescaleGradient.apply(x, factor)  # type: ignore[return-value]
