"""From a classifier that the authors' package wrote (`save_pretrained`: config.json and model.safetensors) to this plugin's CanViT."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from glimpsezoo import GlimpseZooError, Task, read_checkpoint
from glimpsezoo_canvit.config import CanViTConfig

_ANCHORS = ("canvit.init_canvas_patch", "readout.proj.weight")
# The authors' names of the settings of the network -> ours.
_SETTINGS = {
    "backbone_name": "backbone",
    "canvas_num_heads": "canvas_heads",
    "canvas_head_dim": "canvas_head_dim",
    "num_canvas_registers": "canvas_registers",
    "num_backbone_registers": "registers",
    "rw_stride": "stride",
    "enable_reads": "reads",
    "enable_vpe": "viewpoint",
    "canvas_projections": "projections",
}


def importer(
    checkpoint: Path, settings: Mapping[str, Any]
) -> tuple[CanViTConfig, Task, dict[str, Tensor], list[str], None, dict[str, float]]:
    """Convert a model.safetensors. Its config.json, beside it, says which network it is; `settings` (from `--set`) override that.

    Returns the config, the task (classes are numbered), the tensors, which keep their names, notes, no numbers of the authors, and their
    settings of the data. Raises `GlimpseZooError` for files of another layout, such as those for canvit-pytorch 0.1.
    """
    tensors = read_checkpoint(checkpoint, _ANCHORS).tensors
    beside = checkpoint.with_name("config.json")
    try:
        network = json.loads(beside.read_bytes())["canvit_config"]
        values = {ours: network[theirs] for theirs, ours in _SETTINGS.items()}
    except (OSError, ValueError, KeyError, TypeError):
        raise GlimpseZooError(
            f"expected a config.json of canvit-pytorch from 0.2 on beside {checkpoint.name}, got none: take both from one repository"
        ) from None
    config = CanViTConfig.parse({**values, **settings}, owner="canvit")
    classes = tuple(str(label) for label in range(len(tensors["readout.proj.weight"])))
    task = Task((512, 512), 3, classes, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    notes = ["scenes of 512 px that cover the shorter side (data.crop=1), as the authors' code takes them"]
    return config, task, tensors, notes, None, {"crop": 1.0}
