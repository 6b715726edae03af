"""From weights with timm's tensor names to this plugin's models."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
from timm.layers.conv2d_same import Conv2dSame
from timm.models.efficientnet import EfficientNet
from torch import Tensor, nn

from glimpsezoo import GlimpseZooError, Released, Task, read_checkpoint
from glimpsezoo_timm.backbone import create_backbone, published
from glimpsezoo_timm.config import TimmConfig
from glimpsezoo_timm.model import TimmModel, head_layers


def importer(checkpoint: Path, settings: Mapping[str, Any]) -> tuple[TimmConfig, Task, dict[str, Tensor], list[str]]:
    """Convert a state dict of `timm.create_model(settings["architecture"])`, also of a model that was wrapped for training.

    EfficientNets that compute as TensorFlow does (`tf_efficientnet_b0`) may also have the names of Melas-Kyriazi's EfficientNet-PyTorch
    (`_conv_stem`, `_blocks.0._depthwise_conv`).

    Returns the config, the task (classes from the head, channels from the first convolution, image size and normalisation as timm
    publishes the architecture), the tensors under this model's names, and notes on what the file does not say. Raises `GlimpseZooError`
    for a file that cannot be read, and for one of another model.
    """
    config = TimmConfig.parse(settings, owner="timm")
    source = published(config.architecture)
    side = config.image_size or source.input_size[-1]
    like = create_backbone(config, source.input_size[0], (side, side), None)
    names = [name for name, tensor in like.state_dict().items() if tensor.ndim]
    found = _read(checkpoint, names, like, config.architecture)
    task = _task(found.tensors, like, side)
    own = TimmModel(config, task).state_dict()
    tensors = {f"backbone.{name}": tensor for name, tensor in found.tensors.items()}
    tensors |= {name: own[name] for name in ("mean", "std")}
    tensors |= {name: value for name, value in own.items() if name.endswith("num_batches_tracked") and name not in tensors}
    notes = [*found.notes, f"images of {side} px, normalised as timm does for {config.architecture}: the file does not say either"]
    return config, task, tensors, notes


def _read(checkpoint: Path, names: Sequence[str], like: nn.Module, architecture: str) -> Released:
    """The file's tensors by timm's names. Raises `GlimpseZooError`, about timm's names, if it has no names that are known."""
    try:
        return read_checkpoint(checkpoint, names)
    except GlimpseZooError as unknown:
        other = _names_of_efficientnet_pytorch(like)
        if not other:
            raise
        try:
            found = read_checkpoint(checkpoint, [other[name] for name in names])
        except GlimpseZooError:
            raise unknown from None
    _check_computes_as_tensorflow(like, architecture)
    back = {theirs: own for own, theirs in other.items()}
    note = "its tensors have the names of EfficientNet-PyTorch, by which they were mapped to timm's"
    return replace(found, tensors={back.get(name, name): tensor for name, tensor in found.tensors.items()}, notes=(*found.notes, note))


def _check_computes_as_tensorflow(like: nn.Module, architecture: str) -> None:
    """EfficientNet-PyTorch pads as TensorFlow does (SAME), with 1e-3 in batch norms; other models take its tensors but not its outputs.

    Only convolutions with a stride tell: SAME without a stride is the usual symmetric padding.
    """
    strided = [each for each in like.modules() if isinstance(each, nn.Conv2d) and max(each.stride) > 1]
    norms = [each for each in like.modules() if isinstance(each, nn.BatchNorm2d)]
    if all(isinstance(each, Conv2dSame) for each in strided) and all(each.eps == 1e-3 for each in norms):
        return
    name = f"tf_{architecture.partition('.')[0]}"
    other = f"import it as timm:{name}" if timm.is_model(name) else "choose one of timm's tf_efficientnet models"
    raise GlimpseZooError(
        f"a checkpoint with the names of EfficientNet-PyTorch expects SAME padding and batch norms with eps 1e-3, got timm:{architecture}, "
        f"which has others: {other}"
    )


def _names_of_efficientnet_pytorch(like: nn.Module) -> dict[str, str]:
    """timm's name -> EfficientNet-PyTorch's, for every tensor of an EfficientNet; empty for other models.

    timm numbers batch norms from 1 and groups blocks by stage. A first block does not expand, so its last convolution is timm's `conv_pw`.
    """
    if not isinstance(like, EfficientNet):
        return {}
    layers = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
    se = {"se.conv_reduce": "_se_reduce", "se.conv_expand": "_se_expand"}
    expanding = {
        "conv_pw": "_expand_conv",
        "bn1": "_bn0",
        "conv_dw": "_depthwise_conv",
        "bn2": "_bn1",
        **se,
        "conv_pwl": "_project_conv",
        "bn3": "_bn2",
    }
    plain = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", **se, "conv_pw": "_project_conv", "bn2": "_bn2"}
    stages = [list(stage.named_children()) for stage in like.blocks.children()]
    blocks = [(f"blocks.{stage}.{place}", block) for stage, inside in enumerate(stages) for place, block in inside]
    for number, (own, block) in enumerate(blocks):
        within = expanding if hasattr(block, "conv_pwl") else plain
        layers |= {f"{own}.{name}": f"_blocks.{number}.{theirs}" for name, theirs in within.items()}
    return {name: f"{layers[layer]}.{kind}" for name in like.state_dict() for layer, _, kind in [name.rpartition(".")] if layer in layers}


def _task(tensors: Mapping[str, Tensor], like: Any, side: int) -> Task:
    """Classes are numbered, because the file does not name them."""
    heads = [f"{name}.weight" for name in head_layers(like)]
    head = next((tensors[name] for name in heads if name in tensors), None)
    if head is None or not head.ndim or not len(head):
        raise GlimpseZooError(
            f"expected a checkpoint with a classifier ({', '.join(heads) or 'none is known'}), got one without: choose another"
        )
    first = next((f"{name}.weight" for name, module in like.named_modules() if isinstance(module, nn.Conv2d)), "")
    channels = tensors[first].shape[1] if first in tensors and tensors[first].ndim == 4 else 3
    return Task((side, side), channels, tuple(map(str, range(len(head)))))
