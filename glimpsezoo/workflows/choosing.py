"""Choose images to show by how a model fared on them, and say how each was chosen."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice, zip_longest

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from glimpsezoo.conditions.corruptions.condition import Corruption
from glimpsezoo.data.base import BadImageError, ImageData
from glimpsezoo.errors import GlimpseZooError, one_line
from glimpsezoo.evaluation.rows import Rows
from glimpsezoo.measures.result import Result
from glimpsezoo.reports.pictures.traced import Subject, Traced, Viewing, trace_image
from glimpsezoo.specs import CorruptionSpec
from glimpsezoo.zoo.plugins import registry

SEVERITY = 3
TRIED = 40  # images among which one is sought that the corruption flips
SEED = 0  # of the order in which images are drawn


@dataclass(frozen=True)
class MeasuredModel:
    """A model with the images that it was measured on."""

    viewing: Viewing
    data: ImageData
    """Image k is that of row k."""
    rows: Rows
    result: Result

    def shown(self, place: int, chosen: str) -> Subject | None:
        """The image at a place; None if it cannot be read."""
        example = next(iter(self.data.examples_at([place])))
        if isinstance(example, BadImageError):
            return None
        name = " ".join(part for part in (self.result.data.name, self.result.data.split, f"id {example.id}") if part)
        return Subject(name, example.image, example.label, example.id, chosen)


def chosen_traces(measured: MeasuredModel, images: int, notes: list[str]) -> list[Traced]:
    """Traces of `images` images: the kinds in turn, each drawn at random from all of its kind. A flipped image has two traces.

    notes: gets what cannot be shown, and why.
    """
    hits = measured.rows.hits
    kinds = [_drawn(measured, those, _said(name, those, hits)) for name, those in _kinds(hits).items() if those.any()]
    kinds.append(_flipped(measured, notes))
    turns = (found for turn in zip_longest(*kinds) for found in turn if found)
    return [traced for found in islice(turns, images) for traced in found]


def _kinds(hits: Bool[ndarray, "n T"]) -> dict[str, Bool[ndarray, "n"]]:
    """Name -> which images are of the kind."""
    wrong = {"wrong": ~hits[:, -1]}
    if hits.shape[1] == 1:
        return {"right": hits[:, 0], **wrong}
    return {"right early": np.asarray(hits.all(1)), "right late": ~hits[:, 0] & hits[:, -1], **wrong}


def _said(name: str, those: Bool[ndarray, "n"], hits: Bool[ndarray, "n T"]) -> str:
    several = {"right early": "right after every step", "right late": "wrong after step 1, right after the last"}
    meaning = several.get(name, f"{name} after the last step" if hits.shape[1] > 1 else "")
    count = f"one of {int(those.sum()):,} such images of {len(hits):,}, drawn at random"
    return f"{name.capitalize()}: {', '.join(filter(None, (meaning, count)))}"


def _drawn(measured: MeasuredModel, those: Bool[ndarray, "n"], said: str) -> Iterator[list[Traced]]:
    for place in _shuffled(those, SEED):
        if subject := measured.shown(place, said):
            yield [trace_image(measured.viewing, subject)]


def _shuffled(those: Bool[ndarray, "n"], seed: int) -> list[int]:
    return np.random.default_rng(seed).permutation(np.flatnonzero(those)).tolist()


def _flipped(measured: MeasuredModel, notes: list[str]) -> Iterator[list[Traced]]:
    """Images that are right as they are, and wrong under the corruption that the model was measured to suffer most from."""
    try:
        condition = _worst(measured)
    except GlimpseZooError as error:  # its plugin is gone, or published images were measured that are smaller than it expects
        notes.append(f"{measured.viewing.model_name} is not shown under a corruption: {one_line(error)}")
        return
    if condition is None:
        return
    name = f"{condition.name} {condition.severity}"
    under = replace(measured.viewing, condition=condition, condition_name=name)
    places = _shuffled(measured.rows.hits[:, -1], SEED + 1)[:TRIED]
    for tried, place in enumerate(places, start=1):
        subject = measured.shown(place, "")
        if subject is None or (corrupted := trace_image(under, subject)).looks[-1].right:
            continue
        how = f"the corruption that it was measured to suffer most from at severity {SEVERITY}; number {tried} that was drawn and tried"
        clean = trace_image(measured.viewing, replace(subject, chosen=f"Flipped by {name}: right without it, wrong with it"))
        yield [clean, replace(corrupted, chosen=f"Wrong under {name}, {how}")]


def _worst(measured: MeasuredModel) -> Corruption | None:
    """The corruption under which the model is least accurate; None if none was measured. Raises `GlimpseZooError`."""
    found = measured.result.corruptions
    shares = {name: row[SEVERITY - 1].value for name, row in found.table.items() if row[SEVERITY - 1]} if found else {}
    if not shares:
        return None
    spec = registry().find(CorruptionSpec, min(shares, key=lambda name: shares[name]))
    return Corruption(spec, SEVERITY, measured.data.task.image_size, measured.result.run.seed)
