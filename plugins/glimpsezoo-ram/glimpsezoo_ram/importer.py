"""From the checkpoints in a public re-implementation of RAM to this plugin's model.

github.com/kevinzakka/recurrent-visual-attention (MIT) has two files, `models/ram_6_8x8_2_ckpt.pth.tar` and `..._model_best.pth.tar` at
commit 3f04ccb (2018): MNIST, 6 glimpses of 8 x 8 px at one scale, tested with 10 runs per image. Their locator is linear, and their
places are tanh(tanh(f(h)) + noise). Later code of that repository does not fit these files.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from glimpsezoo import GlimpseZooError, Task, read_checkpoint
from glimpsezoo_ram.config import RamConfig
from glimpsezoo_ram.model import RAM

# Ours -> theirs: the name of a tensor but for `.weight` and `.bias`.
_MODULES = {
    "glimpse.pixels": "sensor.fc1",
    "glimpse.place": "sensor.fc2",
    "glimpse.what": "sensor.fc3",
    "glimpse.where": "sensor.fc4",
    "input": "rnn.i2h",
    "recurrent": "rnn.h2h",
    "locator.0": "locator.fc",
    "classifier": "classifier.fc",
    "baseline": "baseliner.fc",
}
_PATCHES, _CLASSIFIER = "sensor.fc1.weight", "classifier.fc.weight"
_OF_THE_FILES = {"glimpses": 6, "deviation": 0.17, "evaluations": 10, "locator_hidden": 0, "bound": "tanh"}  # the files do not say


def importer(checkpoint: Path, settings: Mapping[str, Any]) -> tuple[RamConfig, Task, dict[str, Tensor], list[str]]:
    """Convert one of the files, or one of its layout. `settings` (from `--set`) override what the files do not say.

    Returns the config, the task (MNIST, normalised as the weights expect), the tensors under this model's names, and notes. Raises
    `GlimpseZooError` for a file of another layout, and for tensors that are missing, extra or of another shape.
    """
    names = {f"{ours}.{part}": f"{theirs}.{part}" for ours, theirs in _MODULES.items() for part in ("weight", "bias")}
    found = read_checkpoint(checkpoint, tuple(names.values()), usual="model_state.")
    tensors = found.tensors
    for name in names.values():
        if name not in tensors:
            raise GlimpseZooError(
                f"expected a checkpoint with a tensor {name!r}, but {checkpoint.name} has none: give a file of the layout of commit 3f04ccb"
            )
    if extra := [name for name in tensors if name not in names.values()]:
        raise GlimpseZooError(
            f"expected a checkpoint of RAM alone, got {checkpoint.name} with a tensor {extra[0]!r} as well: "
            "give a file of the layout of commit 3f04ccb"
        )
    values = {**_OF_THE_FILES, **settings}
    config = RamConfig.parse(values, owner="ram")
    if "patch" not in values:
        config = RamConfig.parse({**values, "patch": max(1, math.isqrt(tensors[_PATCHES].shape[1] // config.scales))}, owner="ram")
    classes = tuple(str(label) for label in range(len(tensors[_CLASSIFIER])))
    task = Task((28, 28), 1, classes, mean=(0.1307,), std=(0.3081,))
    own = RAM(config, task).state_dict()
    for name, theirs in names.items():
        if name not in own or own[name].shape != tensors[theirs].shape:
            wanted = tuple(own[name].shape) if name in own else "no such tensor"
            raise GlimpseZooError(
                f"expected the tensor {theirs!r} of shape {wanted}, got {tuple(tensors[theirs].shape)}: "
                "correct the settings patch and scales"
            )
    notes = [*found.notes, "6 glimpses, the deviation .17, 10 runs per image and tanh are those of the files' settings and code"]
    return config, task, {name: tensors[theirs] for name, theirs in names.items()}, notes
