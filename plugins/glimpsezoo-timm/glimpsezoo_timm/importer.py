"""From weights with timm's tensor names to this plugin's models."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from glimpsezoo import GlimpseZooError, Task, read_checkpoint
from glimpsezoo_timm.backbone import create_backbone, published
from glimpsezoo_timm.config import TimmConfig
from glimpsezoo_timm.model import TimmModel, head_layers


def importer(checkpoint: Path, settings: Mapping[str, Any]) -> tuple[TimmConfig, Task, dict[str, Tensor], list[str]]:
    """Convert a state dict of `timm.create_model(settings["architecture"])`, also of a model that was wrapped for training.

    Returns the config, the task (classes from the head, channels from the first convolution, image size and normalisation as timm
    publishes the architecture), the tensors under this model's names, and notes on what the file does not say. Raises `GlimpseZooError`
    for a file that cannot be read, and for one of another model.
    """
    config = TimmConfig.parse(settings, owner="timm")
    source = published(config.architecture)
    side = config.image_size or source.input_size[-1]
    like = create_backbone(config, source.input_size[0], (side, side), None)
    names = [name for name, tensor in like.state_dict().items() if tensor.ndim]
    found = read_checkpoint(checkpoint, names)
    task = _task(found.tensors, like, side)
    own = TimmModel(config, task).state_dict()
    tensors = {f"backbone.{name}": tensor for name, tensor in found.tensors.items()}
    tensors |= {name: own[name] for name in ("mean", "std")}
    tensors |= {name: value for name, value in own.items() if name.endswith("num_batches_tracked") and name not in tensors}
    notes = [*found.notes, f"images of {side} px, normalised as timm does for {config.architecture}: the file does not say either"]
    return config, task, tensors, notes


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
