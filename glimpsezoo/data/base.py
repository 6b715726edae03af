"""What the harness asks of a data set: examples in [0, 1] pixels by index, with an id, a group and a label."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from glimpsezoo.specs import Task


class Example(NamedTuple):
    """One image. image: [C, H, W] in [0, 1]. id: unique in its split and the same in every run. group: its source image."""

    image: Tensor
    label: int
    id: int
    group: int


class Batch(NamedTuple):
    """Examples of one size, stacked."""

    images: Float[Tensor, "B C H W"]
    labels: Int[Tensor, "B"]
    ids: Int[Tensor, "B"]
    groups: Int[Tensor, "B"]


def collate(examples: list[Example]) -> Batch:
    """Stack examples [C, H, W] of one size into a batch."""
    images = torch.stack([e.image for e in examples])
    labels, ids, groups = (torch.tensor([getattr(e, name) for e in examples]) for name in ("label", "id", "group"))
    return Batch(images, labels, ids, groups)


@dataclass(frozen=True, kw_only=True)
class DataInfo:
    """Identity of one split as it was opened. fingerprint: a hash of the source's content and of every setting that changes pixels."""

    name: str
    source: str
    revision: str | None
    fingerprint: str
    split: str
    transform: str


class ImageData(ABC):
    """One split of a data set. Random access; an example is a function of (seed, split, index) alone."""

    info: DataInfo
    task: Task

    @abstractmethod
    def __len__(self) -> int:
        """How many examples there are."""

    @abstractmethod
    def __getitem__(self, index: int) -> Example:
        """The example at `index`, as it is measured."""

    def training_example(self, index: int, epoch: int) -> Example:
        """The example at `index` as it is trained on in `epoch`: augmented, or placed anew."""
        return self[index]

    def examples(self, start: int, stop: int) -> Iterator[Example]:
        """Examples start..stop-1 in order. A source that reads files in sequence overrides it to read each once."""
        return (self[index] for index in range(start, stop))
