"""The layout of a folder of images: which folders are classes, which are splits, which files are images, and what is ignored.

Nothing is guessed silently: if the folders are ambiguous, an error says how to choose.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

from glimpsezoo.data.splits import TEST_NAMES, TRAIN_NAMES, named, stem, told_by
from glimpsezoo.errors import GlimpseZooError, check_unicode, counted, one_line

Layout = Literal["auto", "classes", "splits"]

SYSTEM = frozenset({"__macosx", "thumbs.db", "desktop.ini", "$recycle.bin", "system volume information", "@eadir"})
# Formats that Pillow knows but cannot decode, or only by running another program.
FOREIGN = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"})
SHOWN = 3  # example names in a message


@cache
def image_suffixes() -> frozenset[str]:
    """The suffixes of all image files that this Pillow, with its registered plugins, can decode."""
    from PIL import Image

    return frozenset(end for end, kind in Image.registered_extensions().items() if kind in Image.OPEN and kind not in FOREIGN)


def is_image(path: str | Path) -> bool:
    """Whether a file has the suffix of an image."""
    return os.path.splitext(path)[1].lower() in image_suffixes()


def is_hidden(name: str) -> bool:
    """Whether a file or folder belongs to the operating system or an editor and is not data."""
    return name.startswith(".") or name.casefold() in SYSTEM


@dataclass
class IgnoredPaths:
    """Files and folders that are not part of the data."""

    paths: dict[str, set[Path]] = field(default_factory=dict)
    """Why -> the paths."""

    def add(self, why: str, path: Path) -> None:
        self.paths.setdefault(why, set()).add(path)

    def in_words(self) -> str:
        """The end of a message that says what was left out; '' if nothing was."""
        return "; left out: " + ", ".join(f"{why}: {what}" for why, what in self.told().items()) if self.paths else ""

    def told(self) -> dict[str, str]:
        """Why -> the number of paths, and some of their names."""
        told = {}
        for why, paths in self.paths.items():
            names = sorted({path.name for path in paths})
            told[why] = f"{len(paths)} ({', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''})"
        return told


class ClassFolder(NamedTuple):
    """The images of one class in one split."""

    name: str
    """The class."""
    files: tuple[Path, ...]
    """Its images at any depth, sorted."""


@dataclass(frozen=True)
class FolderLayout:
    """How a folder is read."""

    root: Path
    train: str | None
    """The name of the split folder to train on; '' if the classes are in `root` itself, None if there is none."""
    test: str
    """The name of the split folder to measure on; it may be that of `train`."""
    ignored: IgnoredPaths
    """What was ignored so far."""

    def classes_of(self, split: str) -> list[ClassFolder]:
        """The class folders of 'train' or 'test'. Files beside them are ignored. Raises `GlimpseZooError` for a name that is no text."""
        root = self.root / ((self.train if split == "train" else self.test) or "")
        folders, files = _entries(root, self.ignored)
        for file in files:
            self.ignored.add("outside class folders" if is_image(file) else "no image", root / file)
        for name in folders:
            check_unicode(name)
        return [_class_folder(root / name, self.ignored) for name in folders]


def read_layout(root: Path, layout: Layout, train: str | None, test: str | None) -> FolderLayout:
    """Find the layout of a folder. layout: 'classes', 'splits', or 'auto' to find out. train, test: split folders named by the user.

    Raises `GlimpseZooError` for a folder that can be read in more than one way or in none.
    """
    ignored = IgnoredPaths()
    folders, _ = _entries(root, ignored)
    for key, name in (("train", train), ("test", test)):
        if name is not None and (name == "." or not (root / name).is_dir()):
            raise GlimpseZooError(f"--set data.{key}={name} expects a folder in {root}, and there are {_some(folders)}")
    if layout == "classes" and (train or test):
        raise GlimpseZooError("--set data.layout=classes expects no split folders, got data.train or data.test: leave one out")
    if not folders:
        raise GlimpseZooError(f"folder:PATH expects a folder of class folders, got {root}, which has none")
    tops = {name: _Top.of(root / name) for name in folders}
    if train is None and test is None and (layout == "classes" or (layout == "auto" and not _has_splits(root, tops))):
        return FolderLayout(root, "", "", ignored)
    chosen = _chosen_splits(root, tops, train, test)
    for name in tops.keys() - {Path(split).parts[0] for split in chosen if split}:
        ignored.add("no split that is read", root / name)
    return FolderLayout(root, *chosen, ignored)


class _Top(NamedTuple):
    """A summary of a folder."""

    images: int
    """The number of images directly in it."""
    folders: tuple[str, ...]
    """The names of the folders in it that contain an image at any depth."""

    @classmethod
    def of(cls, folder: Path) -> "_Top":
        folders, files = _entries(folder, IgnoredPaths())
        return cls(sum(map(is_image, files)), tuple(name for name in folders if next(images_in(folder / name, IgnoredPaths()), None)))

    @property
    def splits(self) -> bool:
        """Whether it looks like a split: it has class folders; if it has images beside them, at least two."""
        return len(self.folders) > (1 if self.images else 0)


class _Chosen(NamedTuple):
    """The split folders to read."""

    train: str | None
    test: str


def _has_splits(root: Path, tops: dict[str, _Top]) -> bool:
    """Whether the folders are splits, not classes. Raises `GlimpseZooError` if that is ambiguous."""
    called = named(TRAIN_NAMES + TEST_NAMES, tops)
    others = [name for name in tops if name not in called]
    if not called:
        _refuse_lookalikes(root, tops)
        _refuse_worded(root, tops)
        return False
    holding = [name for name in called if tops[name].splits]
    plain = [name for name in called if tops[name].images and name not in holding]
    busy = [name for name in others if any(tops[name])]
    if holding and not plain and not busy:
        return True
    if others and not holding:  # classes, one of which has the name of a split
        _refuse_worded(root, tops)
        return False
    if holding and not busy:
        raise GlimpseZooError(
            f"expected class folders in {root / plain[0]}, as in {root / holding[0]}, got "
            f"{counted(tops[plain[0]].images, 'image')} beside or without them: {_other_split(holding)}"
        )
    if not holding:  # then the layout of splits would be refused
        raise GlimpseZooError(
            f"expected class folders in {root} or in its folders {_some(called)}, got images of no class in these: sort each split's "
            "images into a folder per class, or read these as classes by --set data.layout=classes"
        )
    either = f"classes ({_some(tops)}) or splits ({_some(called)})"
    raise GlimpseZooError(
        f"expected class folders, or split folders with class folders, in {root}, got folders that may be {either}: "
        "choose by --set data.layout=classes or --set data.layout=splits"
    )


def _other_split(holding: Sequence[str]) -> str:
    """Advice: a folder with the name of a test split to measure on, or else the training folder, of which a part is held out."""
    if tests := named(TEST_NAMES, holding):
        return f"choose the split to measure by --set data.test={tests[0]}"
    return f"measure on a part of {holding[0]}, which is held out, by --set data.train={holding[0]}"


def _refuse_lookalikes(root: Path, tops: dict[str, _Top]) -> None:
    """Raise `GlimpseZooError` if the folders contain only folders of the same names: such folders are hardly classes."""
    busy = {name: top for name, top in tops.items() if any(top)}
    if any(top.images for top in busy.values()) or not busy:
        return
    names = list(busy)
    if len(busy) == 1:
        raise GlimpseZooError(
            f"expected class folders in {root}, got the one folder {names[0]!r} with folders in it: "
            f"name that folder, or take it for a class by --set data.layout=classes"
        )
    inner = [_past_lone(root, name) for name in sorted(names, key=lambda name: "train" not in name.casefold())]
    within = [_Top.of(root / name) for name in inner]
    shared = set.intersection(*(set(top.folders) for top in within))
    if len(shared) > 1 and not any(top.images for top in within):
        if len(splits := named((*TRAIN_NAMES, *TEST_NAMES), shared)) == len(shared):
            raise GlimpseZooError(
                f"expected split folders with class folders in {root}, got {_some(sorted(inner))}, which all have the folders "
                f"{_some(splits)}: move these above those ({splits[0]}/{inner[0]}), or read all images of a class together by --set "
                "data.layout=classes"
            )
        train, test, *_ = inner
        raise GlimpseZooError(
            f"expected class folders in {root}, got {_some(inner)}, which all have the folders {_some(sorted(shared))}: if splits, "
            f"name them by --set data.train={train} --set data.test={test}; if classes, by --set data.layout=classes"
        )


def _refuse_worded(root: Path, tops: dict[str, _Top]) -> None:
    """Raise `GlimpseZooError` if a folder with the name of a split in its own name contains class folders: it is hardly a class."""
    inner = {name: _past_lone(root, name) for name in tops if told_by(name)}
    holding = [name for name in inner if _Top.of(root / inner[name]).splits]
    if not holding:
        return
    splits = {"train": TRAIN_NAMES, "test": TEST_NAMES}
    found = {key: [inner[name] for word in words for name in holding if told_by(name) == word] for key, words in splits.items()}
    raise GlimpseZooError(
        f"expected class folders in {root}, got {_some(holding)} with folders in {'it' if len(holding) == 1 else 'them'}: "
        f"if splits, choose by {' '.join(f'--set data.{key}={names[0]}' for key, names in found.items() if names)}; if classes, by --set "
        "data.layout=classes"
    )


def _past_lone(root: Path, name: str) -> str:
    """The folder below `name` with the first choice: past folders that contain nothing but one folder."""
    top = _Top.of(root / name)
    return name if top.images or len(top.folders) != 1 else _past_lone(root, f"{name}/{top.folders[0]}")


def _refuse_lone(root: Path, key: str, name: str) -> None:
    """Raise `GlimpseZooError` if the split folder has one folder, which contains only folders: it is hardly the only class."""
    inner = _past_lone(root, name)
    if inner != name and not _Top.of(root / inner).images:
        raise GlimpseZooError(
            f"expected class folders in {root / name}, got one folder with folders in it: if these are the classes, choose by "
            f"--set data.{key}={inner}; if it is the only class, by --set data.{key}={name}"
        )


def _chosen_splits(root: Path, tops: dict[str, _Top], train: str | None, test: str | None) -> _Chosen:
    """The split folders to read: those named by the user, or else those that have the name of a split and contain class folders."""
    usable = [name for name, top in tops.items() if top.splits]
    train = train or _first_of(root, "train", [name for name in named(TRAIN_NAMES, usable) if name != test], tops)
    test = test or _first_of(root, "test", [name for name in named(TEST_NAMES, usable) if name != train], tops) or train
    if test is None:
        name_one = f"name one by --set data.train={usable[0]}, or " if usable else ""
        raise GlimpseZooError(
            f"expected split folders with class folders in {root}, got {_some(tops)}: "
            f"{name_one}take the folders for classes by --set data.layout=classes"
        )
    return _Chosen(train, test)


def _first_of(root: Path, key: str, names: list[str], tops: dict[str, _Top]) -> str | None:
    """The first name, if any. Raises `GlimpseZooError` if the second one is equivalent, like Train and train, or it may be no split."""
    if len(names) > 1 and stem(names[0]) == stem(names[1]):
        raise GlimpseZooError(f"expected one such folder in {root}, got {names[0]} and {names[1]}: choose by --set data.{key}={names[0]}")
    if names and len(tops[names[0]].folders) == 1:
        _refuse_lone(root, key, names[0])
    return names[0] if names else None


def _entries(folder: Path, ignored: IgnoredPaths) -> tuple[list[str], list[str]]:
    """The sorted names of the folders in a folder (including links to folders), and of the files in it."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise GlimpseZooError(f"expected a folder that can be read, got {folder} ({one_line(error)}): change its permissions") from None
    folders, files = [], []
    for name in names:
        if is_hidden(name):
            ignored.add("hidden or of the system", folder / name)
        else:
            (folders if (folder / name).is_dir() else files).append(name)
    return folders, files


def _class_folder(folder: Path, ignored: IgnoredPaths) -> ClassFolder:
    return ClassFolder(folder.name, tuple(sorted(images_in(folder, ignored))))


def images_in(folder: Path, ignored: IgnoredPaths, above: frozenset[str] = frozenset()) -> Iterator[Path]:
    """The image files in a folder at any depth. Links to folders are followed unless they form a cycle."""
    real = os.path.realpath(folder)
    if real in above:
        ignored.add("a link that leads back", folder)
        return
    folders, files = _entries(folder, ignored)
    for name in files:
        if is_image(name) and not _endless(folder / name):
            yield folder / name
        else:
            ignored.add("no image", folder / name)
    for name in folders:
        yield from images_in(folder / name, ignored, above | {real})


def _endless(path: Path) -> bool:
    """Whether this is a pipe, a device or a socket. A file that cannot be read is an image that cannot be read, and is named as one."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False


def _some(names: Sequence[str] | dict[str, _Top]) -> str:
    shown = list(names)[:SHOWN]
    return (", ".join(shown) + (", ..." if len(names) > SHOWN else "")) if shown else "none"
