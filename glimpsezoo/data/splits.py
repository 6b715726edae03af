"""The names of splits, and how one split of a source is divided into several of ours."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "testing", "validation", "valid", "val", "dev", "eval", "evaluation")  # the first that exists is measured
_DRESSED = re.compile(r"[ _.-]*(set|data|images|imgs|split)$")
TENTH = 10  # every tenth training image calibrates, if no calibration split is declared
FIFTH = 5  # every fifth image is a test image, if there is no test split


def stem(name: str) -> str:
    """A split's name without case and decoration.

    >>> stem("Training_Set"), stem("VAL"), stem("test-images"), stem("trains")
    ('training', 'val', 'test', 'trains')
    """
    return _DRESSED.sub("", name.casefold())


def named(names: tuple[str, ...], among: Iterable[str]) -> list[str]:
    """Those of `among` whose stem is one of `names`, in the order of `names`, exact spellings first."""
    rank = {name: place for place, name in enumerate(names)}
    found = [name for name in among if stem(name) in rank]
    return sorted(found, key=lambda name: (rank[stem(name)], name != stem(name), name))


def told_by(name: str) -> str | None:
    """The first word in a folder's name that is the name of a split.

    >>> told_by("seg_train"), told_by("val2017"), told_by("my-test 128"), told_by("trains")
    ('train', 'val', 'test', None)
    """
    return next((word for word in re.split(r"[\W\d_]+", name.casefold()) if word in TRAIN_NAMES + TEST_NAMES), None)


@dataclass(frozen=True, kw_only=True)
class Division:
    """How one split of a source is divided into several of ours."""

    held_out: int | None = None
    """Every n-th image is a test image. None: the source has a test split."""
    every: int | None = None
    """Of the other images, every n-th calibrates."""
    head: int | None = None
    """Of the other images, the first n calibrate."""
    by_class: bool = False
    """Whether to count within each class."""

    def part(self, candidates: np.ndarray, split: str, numbers: np.ndarray | None = None) -> np.ndarray:
        """The candidates [n] that belong to `split`, ascending. numbers: the class numbers of all images, if counted by class."""
        if self.by_class:
            assert numbers is not None
            classes = [candidates[numbers[candidates] == number] for number in np.unique(numbers[candidates])]
            return np.sort(np.concatenate([self._counted(members, split) for members in classes] or [candidates]))
        return self._counted(candidates, split)

    def _counted(self, candidates: np.ndarray, split: str) -> np.ndarray:
        mine = np.full(len(candidates), "train", dtype=object)
        if self.held_out:
            mine[self.held_out - 1 :: self.held_out] = "test"
        rest = (mine == "train").nonzero()[0]
        mine[rest[: self.head] if self.head else rest[self.every - 1 :: self.every] if self.every else []] = "calibration"
        return candidates[mine == split]


def splits_in_words(train: str | None, test: str) -> dict[str, str]:
    """Where each of our splits comes from, in words, for inferred splits. train, test: the source's names. Part of fingerprints."""
    if train == test:
        where = f" of {train}" if train else ""
        return {
            "train": "the rest",
            "calibration": f"every {TENTH}th of the others of each class",
            "test": f"every {FIFTH}th image{where} of each class",
        }
    if train is None:
        return {"test": test}
    return {"train": train, "calibration": f"every {TENTH}th of {train} of each class", "test": test}
