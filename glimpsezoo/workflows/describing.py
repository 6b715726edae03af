"""Describe a data set as a run would read it."""

from pathlib import Path
from typing import Any

from glimpsezoo.data.base import ImageData
from glimpsezoo.data.hub import NotStreamableError
from glimpsezoo.data.loading import open_data
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.specs import load_string
from glimpsezoo.zoo.names import Assignments, data_folder, data_spec


def describe_data(name: str, data_dir: str | None, sets: tuple[str, ...]) -> dict[str, Any]:
    """The facts about a data set with these `--set data.KEY=value` texts. Data that can be streamed are not downloaded.

    Raises `GlimpseZooError` if the test split cannot be opened. For another split that cannot be opened, the facts contain the reason.
    """
    given = Assignments.parse(sets, ())
    if given.shared:
        raise GlimpseZooError(f"--set expects a setting of the data here, got {next(iter(given.shared))!r}: write data.KEY=value")
    folder, settings = data_folder(data_dir), given.of("data")
    data = _opened(name, "test", settings, folder)
    found, info = data.info.inferred, data.info
    facts: dict[str, Any] = {
        "source": info.source,
        "revision": info.revision or "",
        "image size": f"{data.task.image_size[0]} x {data.task.image_size[1]}, {data.task.channels} channel(s)",
        "classes": list(data.task.classes),
        "splits": {split: _size(name, split, settings, folder) for split in ("train", "calibration")} | {"test": len(data)},
    }
    if found is not None:
        facts |= {
            "found": dict(found.splits),
            "configuration": found.configuration or "",
            "columns": dict(found.columns),
            "left out": dict(found.left_out),
            "notes": "; ".join(found.notes),
        }
    return facts | {"transform": info.transform, "fingerprint": info.fingerprint}


def _size(name: str, split: str, settings: dict[str, Any], folder: Path | None) -> int | str:
    try:
        return len(_opened(name, split, settings, folder))
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
