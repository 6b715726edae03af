"""Builds timm's models for any size and number of channels, with one-line errors for what timm cannot do."""

from typing import Any

import timm
import torch
from huggingface_hub import HfApi, try_to_load_from_cache
from jaxtyping import Float
from timm.layers.patch_embed import PatchEmbed
from timm.models import PretrainedCfg
from torch import Tensor, nn

from glimpsezoo import GlimpseZooError, did_you_mean
from glimpsezoo_timm.config import TimmConfig


def published(architecture: str) -> PretrainedCfg:
    """What timm publishes about an architecture: input size, normalisation, weights.

    Raises `GlimpseZooError` for a name that timm does not know, and for an unknown pretrained tag.
    """
    name, _, _ = architecture.partition(".")
    known = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    if known is None:
        raise GlimpseZooError(f"expected the name of a timm model, got {architecture!r}: {did_you_mean(name, timm.list_models())}")
    try:
        return timm.get_pretrained_cfg(architecture) or known
    except RuntimeError:
        tags = did_you_mean(architecture, timm.list_pretrained(f"{name}.*"))
        raise GlimpseZooError(f"expected {name!r} or one of its pretrained tags, got {architecture!r}: {tags}") from None


def create_backbone(
    config: TimmConfig, channels: int, size: tuple[int, int], classes: int | None, *, pretrained: bool = False
) -> nn.Module:
    """timm's model for images [B, channels, height, width] of `size`, with a head of `classes` (None: as many as published).

    Raises `GlimpseZooError` for an unknown architecture, for a size that it cannot take, and for weights that cannot be loaded.
    """
    source = published(config.architecture)
    # Most transformers are built for a fixed size; the other models take any size.
    options: dict[str, Any] = {"img_size": size} if source.fixed_input_size else {}
    if config.patch_size is not None:
        options["patch_size"] = config.patch_size
    if pretrained:
        check_weights(config.architecture, source)
    try:
        backbone = timm.create_model(config.architecture, pretrained=pretrained, num_classes=classes, in_chans=channels, **options)
    except Exception as error:  # timm raises assertions, type, value and run-time errors
        if config.patch_size is not None and isinstance(error, TypeError):
            raise GlimpseZooError(f"timm:{config.architecture} has no patch_size: leave it out, or choose a vision transformer") from None
        raise unfit(config, channels, size, error) from None
    if not config.maxpool:
        _remove_maxpool(backbone, config.architecture)
    _check_patches(backbone, config, size)
    return backbone


def unfit(config: TimmConfig, channels: int, size: tuple[int, int], error: Exception) -> GlimpseZooError:
    """The error for a model that timm cannot build for images of this size, or that fails on such an image."""
    height, width = size
    own = published(config.architecture).input_size[-1]
    patches = "" if config.patch_size is None else f" in patches of {config.patch_size} px"
    return GlimpseZooError(
        f"timm:{config.architecture} cannot take images of {channels} x {height} x {width} px{patches} ({_one_line(error)}): "
        f"try the size it was made for, --set image_size={own}"
    )


def is_trunk_and_head(backbone: Any, image: Float[Tensor, "one C H W"]) -> bool:
    """Whether the model's forward is `forward_head` of the single tensor that `forward_features` returns, as usual in timm.

    It is not if the features are a list (coat, crossvit, efficientvim). Runs the model in eval mode.
    """
    backbone.eval()  # batch statistics stay as they are
    with torch.no_grad():
        features = backbone.forward_features(image)
        whole = backbone(image)
        split = isinstance(features, Tensor) and len(features) == 1 and torch.equal(backbone.forward_head(features), whole)
    backbone.train()  # also drops what some transformers compute from the weights and cache in eval mode
    return split


def _remove_maxpool(backbone: nn.Module, architecture: str) -> None:
    if not isinstance(dict(backbone.named_children()).get("maxpool"), nn.MaxPool2d):
        raise GlimpseZooError(f"timm:{architecture} has no max-pooling in its stem to remove: use maxpool=true, or a ResNet")
    backbone.maxpool = nn.Identity()


def _check_patches(backbone: nn.Module, config: TimmConfig, size: tuple[int, int]) -> None:
    """Refuses a size that is not a multiple of the patch size: timm would silently drop the remaining rows and columns."""
    for module in backbone.modules():
        if isinstance(module, PatchEmbed) and not module.dynamic_img_pad:
            height, width = (int(side) for side in module.patch_size)
            if size[0] % height or size[1] % width:
                nearest = max(height, round(size[0] / height) * height)
                raise GlimpseZooError(
                    f"timm:{config.architecture} cuts images into patches of {height} x {width} px, got {size[0]} x {size[1]} px: "
                    f"choose a multiple (--set image_size={nearest}), or another patch_size"
                )
            return


def check_weights(architecture: str, source: PretrainedCfg) -> None:
    """Raise `GlimpseZooError` at once for weights that do not exist or cannot be reached: timm would retry for a minute."""
    if not source.has_weights:
        have = did_you_mean(architecture, timm.list_pretrained())
        raise GlimpseZooError(f"timm publishes no weights for {architecture!r}: {have}")
    if source.file or not source.hf_hub_id:
        return
    try:
        HfApi().model_info(source.hf_hub_id, timeout=10)
    except Exception as error:  # no network, a proxy that refuses, a Hub that is down, offline mode
        if isinstance(try_to_load_from_cache(source.hf_hub_id, source.hf_hub_filename or "model.safetensors"), str):
            return
        raise GlimpseZooError(
            f"timm's weights {source.hf_hub_id!r} are not on this machine and the Hugging Face Hub cannot be reached ({_one_line(error)}): "
            "connect, or measure without weights (--checkpoint none)"
        ) from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
