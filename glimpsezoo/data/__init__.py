"""Data sets by name: the catalogue (torch-free), the base class of every data set, and the data sets.

    from glimpsezoo.data import open_data, batches

Importing this package does not load torch: the names below are imported when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glimpsezoo.data.base import BadImageError, Batch, DataInfo, Example, ImageData
    from glimpsezoo.data.loading import batches, batches_per_epoch, open_data, training_batches

_HOME = {
    "glimpsezoo.data.base": ("BadImageError", "Batch", "DataInfo", "Example", "ImageData"),
    "glimpsezoo.data.loading": ("batches", "batches_per_epoch", "open_data", "training_batches"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "BadImageError",
    "Batch",
    "DataInfo",
    "Example",
    "ImageData",
    "batches",
    "batches_per_epoch",
    "open_data",
    "training_batches",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'glimpsezoo.data' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value
