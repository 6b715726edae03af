"""Describe a data set as a run would read it."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from glimpsezoo.data.base import ImageData
from glimpsezoo.data.encoded import FolderImages
from glimpsezoo.data.hub import NotStreamableError
from glimpsezoo.data.images import NaturalImages
from glimpsezoo.data.loading import open_data
from glimpsezoo.data.survey import Survey, survey
from glimpsezoo.data.wordnet import titled
from glimpsezoo.errors import GlimpseZooError, first_of
from glimpsezoo.specs import load_string
from glimpsezoo.zoo.names import Assignments, data_folder, data_spec

MOST_DECODED = 5_000  # images of a split


def describe_data(name: str, data_dir: str | None, sets: tuple[str, ...]) -> dict[str, Any]:
    """The facts about a data set with these `--set data.KEY=value` texts. Data that can be streamed are not downloaded.

    Raises `GlimpseZooError` if the test split cannot be opened. For another split that cannot be opened, the facts contain the reason.
    """
    given = Assignments.parse(sets, ())
    if given.shared:
        raise GlimpseZooError(f"--set expects a setting of the data here, got {next(iter(given.shared))!r}: write data.KEY=value")
    folder, settings = data_folder(data_dir), given.of("data")
    data = _opened(name, "test", settings, folder)
    others = {split: _other(name, split, settings, folder) for split in ("train", "calibration")}
    found, info = data.info.inferred, data.info
    facts: dict[str, Any] = {
        "source": info.source,
        "revision": info.revision or "",
        "image size": f"{data.task.image_size[0]} x {data.task.image_size[1]}, {data.task.channels} channel(s)",
        "classes": list(data.task.classes),
        "splits": {split: each if isinstance(each, str) else len(each) for split, each in others.items()} | {"test": len(data)},
    }
    if found is not None:
        facts |= {
            "found": dict(found.splits),
            "configuration": found.configuration or "",
            "columns": dict(found.columns),
            "left out": dict(found.left_out),
            "notes": "; ".join(found.notes),
        }
    if isinstance(data, NaturalImages) and isinstance(data.source.images, FolderImages):
        facts |= _stored({**others, "test": data}, _train_command(name, data_dir, sets))
    return facts | {"transform": info.transform, "fingerprint": info.fingerprint}


def _stored(splits: Mapping[str, ImageData | str], train: str) -> dict[str, Any]:
    """What is in the image files of a folder, and what to do next: its images are decoded, at most `MOST_DECODED` of each split."""
    opened = {split: data for split, data in splits.items() if isinstance(data, NaturalImages)}
    found, decoded, images = Survey(), 0, sum(map(len, opened.values()))
    for data in opened.values():
        chosen = [int(number) for number in data.source.chosen[:: -(-len(data) // MOST_DECODED) or 1]]
        found, decoded = found + survey(data.source.images, chosen, data.source.decoding), decoded + len(chosen)
    counts = {split: np.bincount(data.labels(), minlength=len(data.task.classes)) for split, data in opened.items()}
    classes = next(iter(opened.values())).task.classes
    some = f" among {decoded:,} of {images:,} images" if decoded < images else ""
    ready = all(split in opened for split in ("train", "calibration"))
    repair = f"remove or repair the bad files{some}, then " if found.bad else ""
    untrained = [titled(name) for name, count in zip(classes, counts["train"], strict=True) if not count] if ready else []
    if untrained:
        repair += f"add images to train on of {first_of(untrained)}, then "
    return {
        "images": images,
        "images of a class": {titled(name): {split: int(count[k]) for split, count in counts.items()} for k, name in enumerate(classes)},
        "sizes": found.sizes_in_words,
        "modes": dict(found.modes.most_common()),
        "bad files": {where: why for where, _, why in (line.partition(": ") for line in found.bad)} or f"none{some}",
        "next": f"{repair}{train}" if ready else "name images to train on (see splits), or measure a card on these by --data",
    }


def _train_command(name: str, data_dir: str | None, sets: tuple[str, ...]) -> str:
    words = ["glimpsezoo", "train", "mgnet", "--data", name, *(["--data-dir", data_dir] if data_dir else [])]
    return shlex.join([*words, *(word for text in sets for word in ("--set", text))])


def _other(name: str, split: str, settings: dict[str, Any], folder: Path | None) -> ImageData | str:
    """A split, or why there is none."""
    try:
        return _opened(name, split, settings, folder)
    except GlimpseZooError as error:
        return f"none: {error}"


def _opened(name: str, split: str, settings: dict[str, Any], folder: Path | None) -> ImageData:
    """A split, as a stream if the data can be streamed."""
    spec = data_spec(name)
    streams = "streaming" in load_string(spec.config).model_fields and "streaming" not in settings
    try:
        return open_data(spec, name, split, settings | ({"streaming": True} if streams else {}), folder, on_bad_image="skip")
    except NotStreamableError:
        return open_data(spec, name, split, settings, folder, on_bad_image="skip")
