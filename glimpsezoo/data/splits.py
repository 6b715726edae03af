"""What a split may be called, and how one split of a source serves several of ours."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "testing", "validation", "valid", "val", "dev", "eval", "evaluation")  # the first that is there is measured
_DRESSED = re.compile(r"[ _.-]*(set|data|images|imgs|split)$")
TENTH = 10  # of training images whose calibration split nobody declared, every so many-th calibrates
FIFTH = 5  # and where a set has no test split, every so many-th is a test image


def stem(name: str) -> str:
    """What a split's name says, whatever its case and dress.

    >>> stem("Training_Set"), stem("VAL"), stem("test-images"), stem("trains")
    ('training', 'val', 'test', 'trains')
    """
    return _DRESSED.sub("", name.casefold())


def named(names: tuple[str, ...], among: Iterable[str]) -> list[str]:
    """Those of `among` that are called by one of `names`, in the order of `names`, exact spellings first."""
    rank = {name: place for place, name in enumerate(names)}
    found = [name for name in among if stem(name) in rank]
    return sorted(found, key=lambda name: (rank[stem(name)], name != stem(name), name))


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


def described(train: str | None, test: str, *, by_class: bool) -> dict[str, str]:
    """Where each of our splits comes from, in words, for sets whose splits were found. train, test: the source's names."""
    each = " of each class" if by_class else ""
    if train == test:
        where = f" of {train}" if train else ""
        return {
            "train": "the rest",
            "calibration": f"every {TENTH}th of the others{each}",
            "test": f"every {FIFTH}th image{where}{each}",
        }
    if train is None:
        return {"test": test}
    return {"train": train, "calibration": f"every {TENTH}th of {train}{each}", "test": test}
