"""Opening sets of natural images: those of the catalogue, any set of the Hub, any folder of class folders."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from glimpsezoo.data import hub
from glimpsezoo.data.augment import Augmentation
from glimpsezoo.data.base import DataInfo, ImageData
from glimpsezoo.data.catalogue import IMAGENET_MEAN, IMAGENET_STD
from glimpsezoo.data.config import AugmentedSettings, CataloguedImageSettings, FolderSettings, HubSettings
from glimpsezoo.data.fingerprint import fingerprint
from glimpsezoo.data.images import ImageRows, Labels, NaturalImages
from glimpsezoo.data.rows import FolderRows, Rows
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.specs import DatasetSpec, Task

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
SIDE = 224  # px of an image whose size nobody declared
CROP = 224 / 256  # of the shorter side, as is usual for ImageNet
TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "validation", "valid", "val", "dev", "eval")


@dataclass(frozen=True, kw_only=True)
class Division:
    """How one split of a source serves several of ours.

    held_out: every so many-th row is a test row (None: the source has a test split of its own). every, head: of the others, every so
    many-th calibrates, or the first so many. by_class: counted in each class by itself.
    """

    held_out: int | None = None
    every: int | None = None
    head: int | None = None
    by_class: bool = False

    def rows(self, candidates: np.ndarray, split: str, numbers: np.ndarray | None = None) -> np.ndarray:
        """Those of the candidates [n] that `split` has, ascending. numbers: the labels of all rows, where it goes by class."""
        if self.by_class:
            assert numbers is not None
            classes = [candidates[numbers[candidates] == number] for number in np.unique(numbers[candidates])]
            return np.sort(np.concatenate([self._counted(rows, split) for rows in classes] or [candidates]))
        return self._counted(candidates, split)

    def _counted(self, rows: np.ndarray, split: str) -> np.ndarray:
        mine = np.full(len(rows), "train", dtype=object)
        if self.held_out:
            mine[self.held_out - 1 :: self.held_out] = "test"
        rest = (mine == "train").nonzero()[0]
        mine[rest[: self.head] if self.head else rest[self.every - 1 :: self.every] if self.every else []] = "calibration"
        return rows[mine == split]


@dataclass(frozen=True, kw_only=True)
class HubSet:
    """A set of the Hub that the catalogue knows. test: the split of the Hub that is measured.

    first_classes: only rows of so many classes. crop: see `images.fitted`.
    """

    request: hub.Request
    test: str
    division: Division
    first_classes: int | None = None
    crop: float = CROP

    @property
    def by_label(self) -> bool:
        """Whether labels decide which rows a split has."""
        return self.first_classes is not None or self.division.by_class


_IMAGENET = hub.Request("ILSVRC/imagenet-1k", folders=("imagenet-1k", "imagenet"), gated=True)
_CMC = hub.Request("clane9/imagenet-100", folders=("imagenet-100", "imagenet100-cmc"))
_TINY = hub.Request("zh-plus/tiny-imagenet", folders=("tiny-imagenet",))
HUB_SETS: Mapping[str, HubSet] = {
    "tiny-imagenet": HubSet(request=_TINY, test="valid", division=Division(every=20, by_class=True), crop=1.0),
    "imagenet": HubSet(request=_IMAGENET, test="validation", division=Division(head=10_000)),
    "imagenet100": HubSet(request=_IMAGENET, test="validation", division=Division(head=5_000), first_classes=100),
    "imagenet100-cmc": HubSet(request=_CMC, test="validation", division=Division(every=20)),
}
TENTH = 10  # of other sets' training images, every so many-th calibrates
FIFTH = 5  # and where a set has no test split, every so many-th is a test image


@dataclass(frozen=True)
class _Opening:
    """What is being opened: the user's name for it, the split and the settings. source, revision: for the card."""

    name: str
    split: str
    config: AugmentedSettings
    source: str
    revision: str | None = None


def open_catalogued(spec: DatasetSpec, name: str, split: str, config: CataloguedImageSettings, data_dir: Path | None) -> ImageData:
    """Open a split of a set in `HUB_SETS`, from the Hub or from a copy of its Parquet files at or below `data_dir`."""
    assert spec.task is not None
    known = HUB_SETS[spec.name]
    found = hub.find(known.request, data_dir)
    columns = hub.find_columns(found.features(), "image", "label")
    rows = hub.open_rows(found, known.test if split == "test" else "train", columns, streaming=config.streaming, shuffled=split == "train")
    labels = Labels(len(spec.task.classes))
    # A stream's labels are read ahead only where they decide which rows a split has.
    numbers = None if config.streaming and not known.by_label else labels.numbers_of(rows)
    candidates = np.arange(len(rows))
    if known.first_classes is not None:
        assert numbers is not None
        candidates = ((numbers >= 0) & (numbers < known.first_classes)).nonzero()[0]
    chosen = candidates if split == "test" else known.division.rows(candidates, split, numbers)
    opening = _Opening(name, split, config, f"hf:{known.request.repository}", found.revision)
    return _opened(opening, spec.task, ImageRows(rows, chosen, labels, known.crop, numbers))


def open_hub(spec: DatasetSpec, name: str, split: str, config: HubSettings, data_dir: Path | None) -> ImageData:
    """Open a split of `hf:OWNER/NAME[@REVISION]`, its columns and classes found from its features."""
    repository, _, revision = name.removeprefix(spec.name).partition("@")
    found = hub.find(hub.Request(repository, revision or None, config.subset), data_dir)
    features = found.features()
    columns = hub.find_columns(features, config.image, config.label)
    train = config.train or _first(TRAIN_NAMES, found.files) or next(iter(found.files))
    test = config.test or _first(TEST_NAMES, found.files) or train
    rows = hub.open_rows(found, test if split == "test" else train, columns, streaming=config.streaming, shuffled=split == "train")
    classes = hub.class_names(features[columns[1]])
    labels = Labels(len(classes))
    if not classes:  # a plain column: the classes are what occurs in it
        classes, labels = _occurring([hub.open_rows(found, s, columns, streaming=config.streaming, shuffled=False) for s in {train, test}])
    numbers = None if config.streaming else labels.numbers_of(rows)
    if numbers is not None and len(numbers) and numbers.max() < 0:
        raise GlimpseZooError(f"expected labels in the split {test!r} of {name}, got none: name another split by --set data.test=NAME")
    chosen = np.arange(len(rows))
    if split != "test" or train == test:
        chosen = Division(held_out=FIFTH if train == test else None, every=TENTH).rows(chosen, split)
    opening = _Opening(name, split, config, f"hf:{repository}", found.revision)
    return _opened(opening, _task(config, classes), ImageRows(rows, chosen, labels, CROP, numbers))


def open_folder(spec: DatasetSpec, name: str, split: str, config: FolderSettings, data_dir: Path | None) -> ImageData:
    """Open a split of `folder:PATH`: class folders in PATH/train and PATH/test (or val, ...), or all in PATH itself."""
    path = Path(name.removeprefix(spec.name)).expanduser()
    if data_dir is not None and not path.is_absolute():
        path = data_dir / path
    if not path.is_dir():
        raise GlimpseZooError(f"folder:PATH expects a folder of class folders, got {path}, which is no folder")
    inside = {entry.name for entry in path.iterdir() if entry.is_dir()}
    train, test = _first(TRAIN_NAMES, inside), _first(TEST_NAMES, inside)
    roots = {"train": path / (train or test or ""), "test": path / (test or train or "")}
    if split != "test" and test and not train:
        raise GlimpseZooError(f"expected {path}/train to train and calibrate on, got only {path}/{test}")
    classes = tuple(sorted({entry.name for root in roots.values() for entry in root.iterdir() if entry.is_dir()}))
    if not classes:
        raise GlimpseZooError(f"folder:PATH expects a folder of class folders, got {path}, which has none")
    root = roots["test" if split == "test" else "train"]
    files = [[file for file in sorted((root / label).rglob("*")) if file.suffix.lower() in SUFFIXES] for label in classes]
    numbers = np.repeat(np.arange(len(classes)), [len(of_class) for of_class in files])
    chosen = np.arange(len(numbers))
    if split != "test" or not test:
        division = Division(held_out=None if test else FIFTH, every=TENTH, by_class=True)
        chosen = division.rows(chosen, split, numbers)
    rows = FolderRows(root, [file for of_class in files for file in of_class], numbers.tolist())
    shown = f"{spec.name}{path.resolve().name}"
    opening = _Opening(shown, split, config, shown)
    return _opened(opening, _task(config, classes), ImageRows(rows, chosen, Labels(len(classes)), CROP, numbers))


def _opened(opening: _Opening, task: Task, source: ImageRows) -> NaturalImages:
    config, split = opening.config, opening.split
    if config.size is not None:
        task = replace(task, image_size=(config.size, config.size))
    transform = _described(task, source.crop)
    ignored = {"streaming", "size"} | (set() if split == "train" else config.augmentation)
    content = f"{source.rows.digest()}/{hashlib.sha256(np.asarray(source.chosen, dtype=np.int64).tobytes()).hexdigest()}"
    info = DataInfo(
        name=opening.name,
        source=opening.source,
        revision=opening.revision,
        fingerprint=fingerprint(content, split, transform, config, ignore=ignored),
        split=split,
        transform=transform,
    )
    return NaturalImages(info, task, source, Augmentation(task.image_size, config) if split == "train" else None)


def _described(task: Task, crop: float) -> str:
    height, width = task.image_size
    colours = "grey" if task.channels == 1 else "RGB"
    return f"{colours}, resized (bilinear) until {width} x {height} covers {crop:.1%} of the shorter side, centre crop"


def _task(config: FolderSettings, classes: tuple[str, ...]) -> Task:
    side = config.size or SIDE
    if config.channels == 1:
        return Task(image_size=(side, side), channels=1, classes=classes)
    return Task(image_size=(side, side), channels=3, classes=classes, mean=IMAGENET_MEAN, std=IMAGENET_STD)


def _first(names: tuple[str, ...], among: Any) -> str | None:
    return next((name for name in names if name in among), None)


def _occurring(tables: list[Rows]) -> tuple[tuple[str, ...], Labels]:
    """The classes that occur in these tables: 0 to the largest number, or all names in order."""
    seen = {label for rows in tables for label in rows.label_column().unique().to_pylist() if label is not None}
    if all(isinstance(label, int) for label in seen):
        count = max(seen, default=-1) + 1
        return tuple(map(str, range(count))), Labels(count)
    names = tuple(sorted(map(str, seen)))
    return names, Labels(len(names), {name: number for number, name in enumerate(names)})
