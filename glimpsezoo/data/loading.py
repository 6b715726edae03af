"""From names to batches: opens a split, and loads it in order (to measure) or shuffled (to train)."""

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from glimpsezoo.data.base import Batch, ImageData, OnBadImage, collate
from glimpsezoo.data.config import task_of
from glimpsezoo.data.digests import hashed_again
from glimpsezoo.data.images import NaturalImages, Stored
from glimpsezoo.data.memory import InMemory
from glimpsezoo.data.wordnet import titled
from glimpsezoo.data.workers import loaded, or_error
from glimpsezoo.errors import GlimpseZooError, did_you_mean, first_of
from glimpsezoo.specs import DatasetSpec, Task, load_string

SPLITS = ("train", "calibration", "test")


def open_data(
    spec: DatasetSpec,
    name: str,
    split: str,
    settings: Mapping[str, Any],
    data_dir: Path | None = None,
    *,
    on_bad_image: OnBadImage = "fail",
    fresh: bool = False,
) -> ImageData:
    """Open one split of the data set that `spec` describes.

    name: what the user typed (a prefix spec reads the rest of it). settings: values of `--set data.KEY`, as text or typed.
    fresh: hash every file again, even if its digest is cached.
    Raises `GlimpseZooError` for an unknown split or setting, for unavailable data and, unless bad images are skipped, for a class
    without an image.
    """
    known = tuple(spec.splits) or SPLITS
    if split not in known:
        raise GlimpseZooError(f"expected a split of {name}, got {split!r}: {did_you_mean(split, known)}")
    config = load_string(spec.config).parse(settings, owner="data")
    with hashed_again(fresh):
        data: ImageData = load_string(spec.source)(spec, name, split, config, data_dir)
    empty = data.empty_classes() if on_bad_image == "fail" and len(data) else ()  # skipping would not help a split without any image
    if empty:
        names = first_of(repr(titled(name)) for name in empty)
        raise GlimpseZooError(
            f"expected images of every class in the {split} split of {name}, got none of {len(empty)} ({names}): "
            f"{_completed(empty, data.task.classes)}; 'run' can continue without them (--on-bad-image skip)"
        )
    return data


def _completed(empty: Sequence[str], classes: Iterable[str]) -> str:
    """Advice for classes without an image: some may have another class's name, in another case or with accents written otherwise."""

    def folded(name: str) -> str:
        return unicodedata.normalize("NFC", name).casefold()

    same = {folded(name): name for name in classes if name not in empty}
    twins = next(((name, same[folded(name)]) for name in empty if folded(name) in same), None)
    if twins is None:
        return "complete the data"
    return f"complete the data, or give {twins[0]!r} and {twins[1]!r} one name, which differ in case or in how accents are stored alone"


def task_on(spec: DatasetSpec, name: str, settings: Mapping[str, Any], data_dir: Path | None = None) -> Task | None:
    """What a model must solve on these data, found without reading an image; None if only opening the data tells.

    Raises `GlimpseZooError` as `open_data` does.
    """
    if not spec.find_task:
        return task_of(spec, settings)
    return load_string(spec.find_task)(spec, name, load_string(spec.config).parse(settings, owner="data"), data_dir)


def batches(
    data: ImageData, start: int, stop: int, batch_size: int, workers: int = 0, *, on_bad_image: OnBadImage = "fail", align: int = 0
) -> Iterator[Batch]:
    """Examples start..stop-1 in order, without augmentation, in batches of at most `batch_size`.

    workers: processes that decode; 0 decodes in this one. align: no batch crosses a multiple of it, so that one loader with its
    workers serves many units. on_bad_image: 'fail' raises `BadImageError`; 'skip' leaves the image out of its batch, which may then be
    smaller or empty, and names it in `Batch.skipped`.
    """
    stop = min(stop, len(data))
    spans, first = [], start
    while first < stop:
        last = min(first + batch_size, stop)
        if align:
            last = min(last, (first // align + 1) * align)
        spans.append((first, last))
        first = last
    yield from loaded(_Spans(data, spans, on_bad_image), workers)


def batches_per_epoch(data: ImageData, batch_size: int) -> int:
    """The number of batches of `training_batches`. A last batch of a single image is left out: it has no batch statistics."""
    full, rest = divmod(len(data), batch_size)
    return full + (rest > 1)


def training_batches(
    data: ImageData,
    epoch: int,
    seed: int,
    batch_size: int,
    workers: int = 0,
    *,
    first_batch: int = 0,
    augment: bool = True,
    share: Callable[[Sequence[int]], Sequence[int]] = lambda whole: whole,
) -> Iterator[Batch]:
    """The batches of one epoch from `first_batch` on, in an order that is a function of (seed, epoch) alone.

    With `augment`, images are those of `training_example`; otherwise they are not augmented. A last batch of a single image is left out.
    workers: processes that decode (and augment what is not held in memory); 0 decodes in this one. share: takes a part of each batch.
    """
    order = data.training_order(epoch, seed).tolist()
    total = batches_per_epoch(data, batch_size)
    places = [share(order[k * batch_size : (k + 1) * batch_size]) for k in range(first_batch, total)]
    if not (augment and isinstance(data, InMemory)):
        yield from loaded(_Shuffled(data, places, epoch, augment), workers)
        return
    missing = [data.missing(each) for each in places]
    decoded = loaded(_Decoded(data.data, missing), workers if any(missing) else 0)
    for each, new, images in zip(places, missing, decoded, strict=True):
        data.hold(new, images)
        yield data.training_batch(each, epoch)


@dataclass(frozen=True)
class _Spans(Dataset[Batch | GlimpseZooError]):
    """Item k is the batch of the examples of span k."""

    data: ImageData
    spans: Sequence[tuple[int, int]]
    """(start, stop) of each batch."""
    on_bad_image: OnBadImage

    def __len__(self) -> int:
        return len(self.spans)

    def __getitem__(self, k: int) -> Batch | GlimpseZooError:
        return or_error(lambda: collate(self.data.examples(*self.spans[k]), self.data.task, self.on_bad_image))


@dataclass(frozen=True)
class _Shuffled(Dataset[Batch | GlimpseZooError]):
    """Item k is batch k of an epoch."""

    data: ImageData
    places: Sequence[Sequence[int]]
    """The places of each batch's examples."""
    epoch: int
    augment: bool

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, k: int) -> Batch | GlimpseZooError:
        places = self.places[k]
        if self.augment:
            return or_error(lambda: self.data.training_batch(places, self.epoch))
        return or_error(lambda: collate(self.data.examples_at(places), self.data.task))


@dataclass(frozen=True)
class _Decoded(Dataset[list[Stored] | GlimpseZooError]):
    """Item k is the decoded images of places[k]."""

    data: NaturalImages
    places: Sequence[Sequence[int]]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, k: int) -> list[Stored] | GlimpseZooError:
        return or_error(lambda: self.data.stored(self.places[k]))
