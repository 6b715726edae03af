"""A fixed stratified subset of a split (`--limit`), and a split held in memory."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from glimpsezoo.core.noise import Noise
from glimpsezoo.data.base import BadImageError, Example, ImageData, good
from glimpsezoo.errors import GlimpseZooError


def stratified(labels: Int[Tensor, "N"], n: int) -> Int[Tensor, "n"]:
    """Choose `n` of N images, each class in proportion to its size; returns their places in ascending order.

    The choices are nested: a smaller one is a subset of a larger one. Within a class the order is random, and always the same.
    """
    shuffled = Noise.of(0, torch.arange(len(labels))).keys.argsort(stable=True)
    rank = torch.empty(len(labels), dtype=torch.float64)
    for label in labels.unique():
        members = shuffled[labels[shuffled] == label]
        rank[members] = (torch.arange(len(members), dtype=torch.float64) + 0.5) / len(members)
    return rank.argsort(stable=True)[:n].sort().values


class Limited(ImageData):
    """The images of `data` at the places `index` [n]."""

    def __init__(self, data: ImageData, index: Int[Tensor, "n"]) -> None:
        self.data, self.index, self.task = data, index.tolist(), data.task
        self.info = replace(data.info, fingerprint=f"{data.info.fingerprint}-limit{len(index)}")

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: int) -> Example:
        return self.data[self.index[index]]

    def examples_at(self, places: Sequence[int]) -> Iterator[Example | BadImageError]:
        return self.data.examples_at([self.index[place] for place in places])

    def labels(self) -> Int[Tensor, "n"]:
        return self.data.labels()[self.index]


def limited(data: ImageData, limit: int | None) -> ImageData:
    """`data`, or a fixed stratified subset of `limit` of its images. Raises `GlimpseZooError` for a limit below 1."""
    if limit is None:
        return data
    if limit < 1:
        raise GlimpseZooError(f"--limit expects 1 image or more, got {limit}")
    return data if limit >= len(data) else Limited(data, stratified(data.labels(), limit))


class Held(ImageData):
    """The images of `data`, read once and held in memory, for a few images that are measured under many conditions.

    Read it without workers: a worker process would hold the images in its own memory, which is lost when it ends.
    """

    def __init__(self, data: ImageData) -> None:
        self.data, self.info, self.task = data, data.info, data.task
        self._held: dict[int, Example | BadImageError] = {}

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Example:
        return good(next(self.examples_at([index])))

    def examples_at(self, places: Sequence[int]) -> Iterator[Example | BadImageError]:
        missing = [place for place in places if place not in self._held]
        self._held |= zip(missing, self.data.examples_at(missing), strict=True)
        return (self._held[place] for place in places)

    def __getstate__(self) -> dict[str, Any]:
        # Images are not pickled, but read again by the other process: one may be a view of a large batch, all of which would be pickled.
        return vars(self) | {"_held": {}}

    def forget(self) -> None:
        """Drop all images; they are read again on the next access."""
        self._held.clear()

    def labels(self) -> Int[Tensor, "n"]:
        return self.data.labels()
