"""Data with a model's classes in another order, or with only some of them, such as a folder with five of ImageNet's thousand."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor

from glimpsezoo.data.base import BadImageError, Example, ImageData
from glimpsezoo.specs import Task


class AmongClasses(ImageData):
    """The images of `data`, with labels that are indices into `classes`, which contain the data's own classes."""

    def __init__(self, data: ImageData, classes: tuple[str, ...]) -> None:
        self.data, self.task = data, replace(data.task, classes=classes)
        self.numbers = [classes.index(name) for name in data.task.classes]
        digest = hashlib.sha256(json.dumps(classes).encode()).hexdigest()[:16]
        self.info = replace(data.info, fingerprint=f"{data.info.fingerprint}-among-{digest}")

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Example:
        return self._numbered(self.data[index])

    def examples_at(self, places: Sequence[int]) -> Iterator[Example | BadImageError]:
        for example in self.data.examples_at(places):
            yield self._numbered(example) if isinstance(example, Example) else example

    def labels(self) -> Int[Tensor, "N"]:
        own, count = self.data.labels(), len(self.numbers)
        found = torch.tensor(self.numbers)[own.clamp(0, count - 1)]
        wrong = torch.where(own < 0, own, len(self.task.classes))  # outside the data's classes stays outside
        return torch.where((own >= 0) & (own < count), found, wrong)

    def empty_classes(self) -> tuple[str, ...]:
        return self.data.empty_classes()

    def _numbered(self, example: Example) -> Example:
        return example._replace(label=self.numbers[example.label])


def task_among(task: Task, classes: tuple[str, ...] | None) -> Task:
    """The task with a model's `classes` if they contain its own, in any order; otherwise unchanged."""
    return replace(task, classes=classes) if classes and set(task.classes) <= set(classes) else task


def among(data: ImageData, classes: tuple[str, ...] | None) -> ImageData:
    """The data with a model's `classes` if they contain their own, in any order; otherwise unchanged."""
    return AmongClasses(data, classes) if classes and task_among(data.task, classes) != data.task else data
