"""Opens images about which nothing is declared: any data set on the Hub, any folder of class folders."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from glimpsezoo.data import hub
from glimpsezoo.data.base import ImageData, InferredFacts
from glimpsezoo.data.catalogue import IMAGENET_MEAN, IMAGENET_STD
from glimpsezoo.data.columns import arrow_types, check_columns, class_names, find_columns, is_listed, item_type
from glimpsezoo.data.config import FolderSettings, HubSettings, OpenSettings
from glimpsezoo.data.encoded import EncodedImages, FolderImages
from glimpsezoo.data.images import SplitSource
from glimpsezoo.data.labels import LabelColumn, Labels, classes_of, renumbered
from glimpsezoo.data.layout import ClassFolder, FolderLayout, read_layout
from glimpsezoo.data.opening import Opening, opened
from glimpsezoo.data.preprocessing import decoding_of
from glimpsezoo.data.splits import FIFTH, TENTH, TEST_NAMES, TRAIN_NAMES, Division, named, splits_in_words
from glimpsezoo.data.wordnet import titled
from glimpsezoo.errors import GlimpseZooError, counted, first_of
from glimpsezoo.specs import DatasetSpec, Task

SIDE = 224  # px of an image unless the size is set


def open_hub(spec: DatasetSpec, name: str, split: str, config: HubSettings, data_dir: Path | None) -> ImageData:
    """Open a split of `hf:OWNER/NAME[@REVISION]`. Splits, columns and classes are inferred from the files."""
    repository, _, revision = name.removeprefix(spec.name).partition("@")
    dataset = hub.find(hub.HubSource(repository, revision or None, config.subset), data_dir)
    train, test = _splits(dataset, config, name, split)
    own = test if split == "test" else train
    assert own is not None
    features = {source: dataset.features(source) for source in dict.fromkeys([train, test]) if source}
    columns = find_columns(features[own], config.image, config.label)
    for source, kinds in features.items():
        check_columns(kinds, columns, f" of the split {source!r}")

    def read(source: str, *, shuffled: bool = False) -> EncodedImages:
        return hub.open_images(dataset, source, columns, streaming=config.streaming, shuffled=shuffled)

    stored = [_label_column(kinds, source, columns[1], lambda source=source: read(source)) for source, kinds in features.items()]
    classes, labels = classes_of(stored)
    images = read(own, shuffled=split == "train")
    numbers = labels[own].numbers_of(images)
    if len(numbers) and numbers.max() < 0:
        raise GlimpseZooError(f"expected labels in the split {own!r} of {name}, got none: name another split by --set data.test=NAME")
    divided = train == test
    chosen = _part(split, numbers, divided=divided)
    sizes = dict(zip(classes, np.bincount(numbers[numbers >= 0], minlength=len(classes)).tolist(), strict=False))
    if split == "test" and len(images) and not len(chosen):
        raise GlimpseZooError(f"{_too_few(name, sizes)}; measure on all of them by --set data.test={test} without data.train")
    ignored = dataset.left_out()
    for other in dataset.files.keys() - features.keys():
        ignored.add("no split that is read", Path(other))
    inferred = InferredFacts(
        classes=classes,
        splits=splits_in_words(train, test),
        columns={"image": columns[0], "label": columns[1]},
        configuration=dataset.configuration,
        left_out=ignored.told(),
        notes=(
            *(_untested(sizes) if divided else ()),
            *renumbered(labels[own], stored),
            *(f"the labels of {each.split} are mapped by name" for each in stored if each.names and each.names != classes),
        ),
    )
    opening = Opening(name, split, config, f"hf:{repository}", dataset.revision, inferred)
    task, decoding = _task(config, classes), decoding_of(config)
    return opened(opening, task, SplitSource(images, chosen, labels[own], spec.crop, numbers, decoding, every_class=split == "test"))


def _splits(dataset: hub.DatasetFiles, config: HubSettings, name: str, split: str) -> tuple[str | None, str]:
    """The source's splits to train on and to measure on; the same if there is only one. Raises `GlimpseZooError`."""
    names = list(dataset.files)
    train = hub.source_split(dataset, config.train) if config.train else None
    test = hub.source_split(dataset, config.test) if config.test else None
    train = train or next((each for each in named(TRAIN_NAMES, names) if each != test), None)
    test = test or next((each for each in named(TEST_NAMES, names) if each != train), None)
    if train is None and test is None:
        if len(names) > 1:
            raise GlimpseZooError(
                f"expected splits of {name} with the names train and test, got {', '.join(names)}: "
                f"name them by --set data.train={names[0]} --set data.test={names[1]}"
            )
        train = test = names[0]
    if split != "test" and train is None:
        raise GlimpseZooError(
            f"expected a split of {name} to train and calibrate on, got only {', '.join(names)}: name one by --set data.train=NAME; "
            f"--set data.train={test} trains on a part of {test} and measures on another"
        )
    measured = test or train
    assert measured is not None
    return train, measured


def _label_column(features: Any, split: str, column: str, images: Callable[[], EncodedImages]) -> LabelColumn:
    import pyarrow as pa

    kind = arrow_types(features)[column]
    names = class_names(features[column])
    return LabelColumn(split, column, names, pa.types.is_boolean(item_type(kind)), is_listed(kind), images)


def open_folder(spec: DatasetSpec, name: str, split: str, config: FolderSettings, data_dir: Path | None) -> ImageData:
    """Open a split of `folder:PATH`: class folders in PATH itself, or in split folders of any names."""
    path = _path_of(spec, name, data_dir)
    layout = read_layout(path, config.layout, config.train, config.test)
    if split != "test" and layout.train is None:
        raise GlimpseZooError(
            f"expected {path}/train to train and calibrate on, got only {layout.test}: name one by --set data.train=NAME; "
            f"--set data.train={layout.test} trains on a part of {layout.test} and measures on another"
        )
    train, test, classes = _classes_in(layout)
    files = {folder.name: folder.files for folder in (test if split == "test" else train)}
    numbers = np.repeat(np.arange(len(classes)), [len(files.get(label, ())) for label in classes])
    divided = layout.train == layout.test
    chosen = _part(split, numbers, divided=divided)
    sizes = {label: len(found) for label, found in files.items()}
    if split == "test" and not len(chosen):
        raise GlimpseZooError(_without_test_images(layout, name, sizes))
    images = FolderImages(path, [file for label in classes for file in files.get(label, ())], numbers.tolist())
    inferred = InferredFacts(
        classes=classes,
        splits=splits_in_words(layout.train, layout.test),
        left_out=layout.ignored.told(),
        notes=_untested(sizes) if divided else (),
    )
    shown = f"{spec.name}{path.resolve().name}"
    source = SplitSource(images, chosen, Labels(len(classes)), spec.crop, numbers, decoding_of(config), every_class=split == "test")
    return opened(Opening(shown, split, config, shown, inferred=inferred), _task(config, classes), source)


def folder_task(spec: DatasetSpec, name: str, config: FolderSettings, data_dir: Path | None) -> Task:
    """The task of `folder:PATH` from the names of its files alone: nothing is decoded or hashed."""
    layout = read_layout(_path_of(spec, name, data_dir), config.layout, config.train, config.test)
    return _task(config, _classes_in(layout)[2])


def _path_of(spec: DatasetSpec, name: str, data_dir: Path | None) -> Path:
    path = Path(name.removeprefix(spec.name)).expanduser()
    if data_dir is not None and not path.is_absolute():
        path = data_dir / path
    if not path.is_dir():
        raise GlimpseZooError(f"folder:PATH expects a folder of class folders, got {path}, which is not a folder")
    return path


def _classes_in(layout: FolderLayout) -> tuple[list[ClassFolder], list[ClassFolder], tuple[str, ...]]:
    """The class folders to train on and to measure on, and the names of all classes."""
    test = layout.classes_of("test")
    train = layout.classes_of("train") if layout.train not in {None, layout.test} else test
    return train, test, tuple(sorted({folder.name for folder in (*train, *test)}))


def _part(split: str, numbers: np.ndarray, *, divided: bool) -> np.ndarray:
    """The places of a split's images. numbers: the class of each image of the source's split. divided: whether that holds all splits.

    They are counted by class, because sources often go through the classes in turn.
    """
    places = np.arange(len(numbers))
    if split == "test" and not divided:
        return places
    return Division(held_out=FIFTH if divided else None, every=TENTH, by_class=True).part(places, split, numbers)


def _untested(sizes: Mapping[str, int]) -> tuple[str, ...]:
    """A note if the rule that makes the test split leaves classes without a test image. sizes: class -> the number of its images."""
    small = [repr(titled(label)) for label in sorted(sizes) if 0 < sizes[label] < FIFTH]
    if not small:
        return ()
    have = "has" if len(small) == 1 else "have"
    return (f"no test image of {first_of(small)}, which {have} fewer than {FIFTH}: 'run' takes --on-bad-image skip",)


def _without_test_images(layout: FolderLayout, name: str, sizes: Mapping[str, int]) -> str:
    ignored = layout.ignored.in_words()
    if layout.train != layout.test:
        return (
            f"expected images in {layout.root / layout.test}, got none in its {_classes_shown(sizes, ignored)}: "
            "add some, or choose by --set data.test=NAME"
        )
    return (
        f"{_too_few(name, sizes, ignored)}; "
        f"add images, at least {FIFTH} per class, or put test images into split folders: {layout.root}/test/CLASS and .../train/CLASS"
    )


def _too_few(name: str, sizes: Mapping[str, int], ignored: str = "") -> str:
    """Why the rule that makes the test split makes none. sizes: class -> the number of its images. ignored: what was left out, in words."""
    return (
        f"expected test images in {name}, got none: every {FIFTH}th image of a class is one, and the largest of "
        f"{_classes_shown(sizes, ignored)} has {max(sizes.values(), default=0)}"
    )


def _classes_shown(sizes: Mapping[str, int], ignored: str) -> str:
    return f"{counted(len(sizes), 'class')} ({first_of(sizes)}{ignored})"


def _task(config: OpenSettings, classes: tuple[str, ...]) -> Task:
    side = config.size or SIDE
    if config.channels == 1:
        return Task(image_size=(side, side), channels=1, classes=classes)
    return Task(image_size=(side, side), channels=3, classes=classes, mean=IMAGENET_MEAN, std=IMAGENET_STD)
