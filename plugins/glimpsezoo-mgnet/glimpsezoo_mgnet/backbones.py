"""Backbones, which turn a glimpse into a feature: any timm model without its head, or the small CNN of the paper's appendix B."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from glimpsezoo import GlimpseZooError, did_you_mean

SMALL_CNN = "cnn4"


class SmallCNN(nn.Module):
    """Four convolutions with 16, 32, 64 and 128 filters of 5, 5, 3 and 3 pixels, ReLU, global average pooling (appendix B).

    The text leaves the padding and the pooling open; the printed costs (table 4) determine them: the first convolution is unpadded, the
    others keep the size, and a 2 x 2 max-pooling follows each of the first three. That makes 3,400,704 MACs at 28 px and 67,887,360 at
    112 px. There is no normalisation.
    """

    width = 128

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 5)
        self.conv2 = nn.Conv2d(16, 32, 5, padding=2)
        self.conv3 = nn.Conv2d(32, 64, 3, padding=1)
        self.conv4 = nn.Conv2d(64, 128, 3, padding=1)
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            # With torch's default, the signal vanishes in four layers without normalisation, and the place of a digit with it.
            nn.init.kaiming_normal_(conv.weight)
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 128"]:
        for conv in (self.conv1, self.conv2, self.conv3):
            x = F.relu(F.max_pool2d(conv(x), 2))  # the same as max-pooling after ReLU, on a quarter of the pixels
        return F.relu(self.conv4(x)).mean((2, 3))


def create_backbone(name: str, channels: int, size: tuple[int, int], *, maxpool: bool = True) -> tuple[nn.Module, int]:
    """An untrained backbone for glimpses of `size` (height, width) in pixels, and the width of its feature.

    The backbone maps [B, channels, height, width] to [B, width]. Raises `GlimpseZooError` for an unknown name, for `maxpool=False` if
    the backbone has no such pooling, and for a size that it cannot take.
    """
    backbone = SmallCNN(channels) if name == SMALL_CNN else _from_timm(name, channels, size)
    if not maxpool:
        _remove_maxpool(backbone, name)
    return backbone, _feature_width(backbone, name, channels, size)


def _from_timm(name: str, channels: int, size: tuple[int, int]) -> nn.Module:
    import timm  # here, because it takes two seconds, which the small CNN does not need

    if not timm.is_model(name):
        raise GlimpseZooError(f"expected a timm model or {SMALL_CNN!r} as backbone, got {name!r}: {did_you_mean(name, known_backbones())}")
    # Models with a fixed input size (most transformers) are built for the size of the glimpse; the others take any size.
    card = timm.get_pretrained_cfg(name)
    options: dict[str, Any] = {"img_size": size} if card is not None and card.fixed_input_size else {}
    try:
        return timm.create_model(name, pretrained=False, num_classes=0, in_chans=channels, **options)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:  # timm raises any of these
        raise _unfit(name, channels, size, error) from None


def known_backbones() -> list[str]:
    """Every name that `create_backbone` takes, without timm's pretrained tags."""
    import timm

    return [SMALL_CNN, *timm.list_models()]


def _remove_maxpool(backbone: nn.Module, name: str) -> None:
    """Table 3's variant for small images: no pooling after the first convolution."""
    if not isinstance(dict(backbone.named_children()).get("maxpool"), nn.MaxPool2d):
        raise GlimpseZooError(f"the backbone {name!r} has no max-pooling in its stem to remove: use maxpool=true, or a ResNet")
    backbone.maxpool = nn.Identity()


def _feature_width(backbone: nn.Module, name: str, channels: int, size: tuple[int, int]) -> int:
    """Measured by one pass over zeros, because timm's attributes differ between families."""
    training = backbone.training
    backbone.eval()  # batch statistics stay as they are
    try:
        with torch.no_grad():
            feature = backbone(torch.zeros(1, channels, *size))
    except (RuntimeError, ValueError, AssertionError, TypeError, IndexError) as error:  # timm models raise any of these
        raise _unfit(name, channels, size, error) from None
    if not isinstance(feature, Tensor) or feature.ndim != 2:
        raise GlimpseZooError(f"expected a backbone with one feature vector per image, but {name!r} gives none: choose another")
    backbone.train(training)
    return feature.shape[1]


def _unfit(name: str, channels: int, size: tuple[int, int], error: Exception) -> GlimpseZooError:
    height, width = size
    why = " ".join(str(error).split())[:120] or type(error).__name__
    return GlimpseZooError(
        f"the backbone {name!r} cannot take glimpses of {channels} x {height} x {width} px ({why}): "
        "set a smaller downsample, or another backbone"
    )
