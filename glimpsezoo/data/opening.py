"""What opening any set of natural images has in common: the image size, the transform in words, and the fingerprint."""

import hashlib
import json
from dataclasses import dataclass, replace

import numpy as np

from glimpsezoo.data.augment import Augmentation
from glimpsezoo.data.base import DataInfo, ImageData, InferredFacts
from glimpsezoo.data.config import AugmentedSettings
from glimpsezoo.data.fingerprint import fingerprint
from glimpsezoo.data.images import NaturalImages, SplitSource
from glimpsezoo.data.labels import content_of
from glimpsezoo.data.wordnet import english
from glimpsezoo.errors import counted
from glimpsezoo.specs import Task

SHOWN = 6  # class names in a line
HOW_TO_READ = {"layout", "subset", "image", "label", "train", "test"}  # where to look; the fingerprint covers what was found there instead


@dataclass(frozen=True)
class Opening:
    """What is being opened."""

    name: str
    """The name that the user typed."""
    split: str
    config: AugmentedSettings
    source: str
    """For `DataInfo`."""
    revision: str | None = None
    """For `DataInfo`."""
    inferred: InferredFacts | None = None
    """What was inferred; None for a set from the catalogue."""


def opened(opening: Opening, task: Task, source: SplitSource) -> NaturalImages:
    """The images of a split, at the size in the settings or else that of the task."""
    config, split = opening.config, opening.split
    if config.size is not None:
        task = replace(task, image_size=(config.size, config.size))
    unsaid = ""
    if config.crop is not None:
        # The transform rounds it. Another than the data set's own, of which that is enough, counts exactly.
        if config.crop not in (source.crop, round(config.crop, 3)):
            unsaid = f"/crop {config.crop!r}"
        source = replace(source, crop=config.crop)
    transform = _described(task, source, opening.inferred)
    ignored = (
        {"streaming", "size", "crop"} | (HOW_TO_READ if opening.inferred else set()) | (set() if split == "train" else config.augmentation)
    )
    chosen = hashlib.sha256(np.asarray(source.chosen, dtype=np.int64).tobytes()).hexdigest()
    info = DataInfo(
        name=opening.name,
        source=opening.source,
        revision=opening.revision,
        fingerprint=fingerprint(
            f"{content_of(source.images, source.labels)}/{chosen}{_read_as(opening.inferred)}{unsaid}",
            split,
            transform,
            config,
            ignore=ignored,
        ),
        split=split,
        transform=transform,
        inferred=opening.inferred,
    )
    return NaturalImages(info, task, source, Augmentation(task.image_size, config) if split == "train" else None)


def _read_as(inferred: InferredFacts | None) -> str:
    """The inferred facts that decide which images and labels are read. Files that were left out do not count."""
    if inferred is None:
        return ""
    return "/" + json.dumps([inferred.classes, dict(inferred.columns), dict(inferred.splits), inferred.configuration], sort_keys=True)


def _described(task: Task, source: SplitSource, inferred: InferredFacts | None) -> str:
    height, width = task.image_size
    colours = "grey" if task.channels == 1 else "RGB"
    rule = f" {source.decoding.rule}," if inferred else ""
    return f"{colours},{rule} resized (bilinear) until {width} x {height} covers {source.crop:.1%} of the shorter side, centre crop"


def told(data: ImageData) -> str | None:
    """What was inferred about a data set in one line; None if nothing was inferred."""
    info, found = data.info, data.info.inferred
    if found is None:
        return None
    height, width = data.task.image_size
    names = ", ".join(map(english, found.classes[:SHOWN])) + (", ..." if len(found.classes) > SHOWN else "")
    parts = [
        f"{counted(len(found.classes), 'class')} ({names})",
        ", ".join(f"{split} from {source}" for split, source in found.splits.items()),
        ", ".join(f"{key} from the column {column!r}" for key, column in found.columns.items()),
        f"configuration {found.configuration}" if found.configuration else "",
        f"{counted(len(data), f'{info.split} image')} at {width} x {height}, {info.transform.partition(', resized')[0]}",
        *found.notes,
        "left out: " + ", ".join(f"{why}: {what}" for why, what in found.left_out.items()) if found.left_out else "",
    ]
    return f"{info.name}: " + "; ".join(part for part in parts if part)
