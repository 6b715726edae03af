"""Encoders: a timm model with its own classifier, which gives a feature vector and the feature map before it."""

from typing import Any, NamedTuple

import timm
import torch
from jaxtyping import Float
from timm.models import mobilenetv3
from torch import Tensor, nn

from glimpsezoo import GlimpseZooError, did_you_mean

WIDE_MOBILENET = "mobilenetv3_large_125"  # of the paper; timm builds it, but has no name for it


class Features(NamedTuple):
    """What an encoder computes of each glimpse."""

    vector: Float[Tensor, "N width"]
    """The input of the encoder's own classifier."""
    map: Float[Tensor, "N C h w"]
    """The last feature map. Tokens of a transformer are N x C x tokens x 1."""


class Encoder(nn.Module):
    """A timm model with random weights for glimpses of `side` px.

    Raises `GlimpseZooError` for a name that timm does not know, and for a model that does not take such glimpses or has no feature map.
    """

    def __init__(self, name: str, channels: int, classes: int, side: int) -> None:
        super().__init__()
        self.net = _create(name, channels, classes, side)
        probe = _probe(self.net, name, channels, side)
        self.width, self.map_shape = probe.vector.shape[1], probe.map.shape[1:]

    def forward(self, glimpses: Float[Tensor, "N C h w"]) -> Features:
        return _features(self.net, glimpses)

    @property
    def head(self) -> nn.Linear:
        """The model's own classifier: vector -> logits."""
        return self.net.get_classifier()  # type: ignore[operator]


def known_backbones() -> list[str]:
    """Every name that `Encoder` takes, without timm's pretrained tags."""
    return [WIDE_MOBILENET, *timm.list_models()]


def _create(name: str, channels: int, classes: int, side: int) -> nn.Module:
    if name == WIDE_MOBILENET:
        return mobilenetv3._gen_mobilenet_v3(name, 1.25, in_chans=channels, num_classes=classes)
    if not timm.is_model(name):
        raise GlimpseZooError(f"expected a timm model as backbone, got {name!r}: {did_you_mean(name, known_backbones())}")
    # Models with a fixed input size (most transformers) are built for the size of the glimpse; the others take any size.
    card = timm.get_pretrained_cfg(name)
    options: dict[str, Any] = {"img_size": (side, side)} if card is not None and card.fixed_input_size else {}
    try:
        return timm.create_model(name, pretrained=False, num_classes=classes, in_chans=channels, **options)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:  # timm raises any of these
        raise _unfit(name, channels, side, error) from None


def _features(net: Any, glimpses: Float[Tensor, "N C h w"]) -> Features:
    found = net.forward_features(glimpses)
    vector = net.forward_head(found, pre_logits=True)
    if found.ndim == 3:  # a transformer's tokens [N, tokens, C]
        found = found.transpose(1, 2)[..., None]
    elif found.shape[1] != net.num_features and found.shape[3] == net.num_features:  # channels last [N, h, w, C]
        found = found.permute(0, 3, 1, 2)
    return Features(vector, found)


def _probe(net: nn.Module, name: str, channels: int, side: int) -> Features:
    """The features of zeros, because timm's attributes differ between families."""
    training = net.training
    net.eval()  # batch statistics stay as they are
    try:
        with torch.no_grad():
            found = _features(net, torch.zeros(1, channels, side, side, device=next(net.parameters()).device))
            head = net.get_classifier()  # type: ignore[operator]
    except (RuntimeError, ValueError, AssertionError, TypeError, IndexError, AttributeError, ZeroDivisionError) as error:  # likewise
        raise _unfit(name, channels, side, error) from None
    if found.vector.ndim != 2 or found.map.ndim != 4 or not isinstance(head, nn.Linear):
        raise GlimpseZooError(
            f"expected a backbone that gives a feature map, a feature vector and a linear classifier, but {name!r} does not: choose another"
        )
    net.train(training)
    return found


def _unfit(name: str, channels: int, side: int, error: Exception) -> GlimpseZooError:
    why = " ".join(str(error).split())[:120] or type(error).__name__
    return GlimpseZooError(
        f"the backbone {name!r} cannot take glimpses of {channels} x {side} x {side} px ({why}): set another patch, or another backbone"
    )
