"""What the paper's tables count, in MACs per image (its "FLOP" is one multiply-accumulate).

d = feature width + 3, B = MACs of the backbone's convolutions at the glimpse's size without its head, c = classes, T = glimpses. In both
conventions the fusion is recomputed over all t features at every step. The locator is counted at every step, including the last one; the
glimpse classifier is not counted; biases, activations and the affine grid cost nothing.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from glimpsezoo import count_macs

if TYPE_CHECKING:
    from glimpsezoo_mgnet.model import MGNet


def paper_macs(backbone: int, d: int, classes: int, glimpses: int) -> int:
    """Tables 1, 2 and 4: sum over t = 1..T of B + 4 d^2 t + (c + 3) d. Convolutions and linear layers only.

    >>> paper_macs(3_400_704, 131, 10, 3)
    10619085
    """
    return sum(backbone + 4 * d * d * t + (classes + 3) * d for t in range(1, glimpses + 1))


def backbone_macs(backbone: nn.Module, channels: int, size: tuple[int, int]) -> int:
    """B: one image of `size` (height, width) pixels, in MACs."""
    return count_macs(lambda: _pass(backbone, channels, size)).macs


@dataclass(frozen=True)
class Elements:
    """What table 3 counts in addition to multiply-accumulates: elements (numbers in a tensor) per glimpse."""

    norm: int
    """Outputs of BatchNorm."""
    pooled: int
    """Inputs of the global average pooling."""
    sampled: int
    """Outputs of the grid sampling."""


def paper_table3_macs(backbone: int, d: int, classes: int, glimpses: int, elements: Elements) -> int:
    """Table 3: `paper_macs` and the attention's two products (2 t^2 d), 5 operations per element of LayerNorm (t d elements),
    2 per element of BatchNorm, 1 per pooled element and 4 per sampled element.
    """
    extra = sum(2 * t * t * d + 5 * t * d for t in range(1, glimpses + 1))
    per_glimpse = 2 * elements.norm + elements.pooled + 4 * elements.sampled
    return paper_macs(backbone, d, classes, glimpses) + extra + glimpses * per_glimpse


def table3_macs(model: "MGNet", step: int) -> int:
    """What table 3 would print for a run of a model with `step` glimpses."""
    channels, size, d = model.task.channels, model.glimpse_size, model.norm.normalized_shape[0]
    macs, elements = backbone_macs(model.backbone, channels, size), backbone_elements(model.backbone, channels, size)
    return paper_table3_macs(macs, d, len(model.task.classes), step, elements)


def backbone_elements(backbone: nn.Module, channels: int, size: tuple[int, int]) -> Elements:
    """The elements of one glimpse of `size` (height, width) in pixels, in one of timm's ResNets."""
    norm, pooled = 0, 0

    def count_norm(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal norm
        norm += output.numel()

    def count_pooled(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal pooled
        pooled += inputs[0].numel()

    hooks = [m.register_forward_hook(count_norm) for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    hooks += [m.register_forward_hook(count_pooled) for m in backbone.modules() if isinstance(m, nn.AdaptiveAvgPool2d)]
    try:
        _pass(backbone, channels, size)
    finally:
        for hook in hooks:
            hook.remove()
    return Elements(norm, pooled, channels * size[0] * size[1])


def _pass(backbone: nn.Module, channels: int, size: tuple[int, int]) -> Tensor:
    """One pass over zeros, which leaves the model as it is."""
    training, parameter = backbone.training, next(backbone.parameters())
    backbone.eval()
    try:
        with torch.no_grad():
            return backbone(torch.zeros(1, channels, *size, device=parameter.device, dtype=parameter.dtype))
    finally:
        backbone.train(training)
