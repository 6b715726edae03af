"""What the harness asks of a data set: examples in [0, 1] pixels by index, with an id, a group and a label."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.noise import Noise
from glimpsezoo.specs import Task

OnBadImage = Literal["fail", "skip"]


class BadImageError(GlimpseZooError):
    """An example that cannot be measured: a corrupt image, a missing label, a label out of range. Its text names the row."""


class Example(NamedTuple):
    """One image. image: [C, H, W] in [0, 1]. id: unique in its split and the same in every run. group: its source image.

    conversions: what was done to the stored pixels beyond what their file's format asks for, in words.
    """

    image: Tensor
    label: int
    id: int
    group: int
    conversions: tuple[str, ...] = ()


class Batch(NamedTuple):
    """Examples of one size, stacked. skipped: one line for each bad image that was left out.

    conversions: what was done to stored pixels -> of how many images.
    """

    images: Float[Tensor, "B C H W"]
    labels: Int[Tensor, "B"]
    ids: Int[Tensor, "B"]
    groups: Int[Tensor, "B"]
    skipped: tuple[str, ...] = ()
    conversions: tuple[tuple[str, int], ...] = ()


def collate(examples: Iterable[Example | BadImageError], task: Task, on_bad_image: OnBadImage = "fail") -> Batch:
    """Stack examples [C, H, W] of the task's size into a batch. A bad one is raised, or left out and named."""
    good, skipped = [], []
    for example in examples:
        if isinstance(example, Example):
            good.append(example)
        elif on_bad_image == "skip":
            skipped.append(str(example))
        else:
            raise example
    images = torch.stack([e.image for e in good]) if good else torch.empty(0, task.channels, *task.image_size)
    labels, ids, groups = (
        torch.tensor(column, dtype=torch.long) for column in ([e.label for e in good], [e.id for e in good], [e.group for e in good])
    )
    conversions = Counter(words for example in good for words in example.conversions)
    return Batch(images, labels, ids, groups, tuple(skipped), tuple(sorted(conversions.items())))


@dataclass(frozen=True, kw_only=True)
class Inferred:
    """What nobody declared of a data set and was found in it. classes: their names, in label order.

    columns: 'image' and 'label' -> their columns, where it has some. splits: ours -> where each comes from, in words. configuration: which
    of the data set's own it is, where they have names. left_out: why -> how much, and which, of what lies there. notes: what else to know.
    """

    classes: tuple[str, ...]
    splits: Mapping[str, str]
    columns: Mapping[str, str] = field(default_factory=dict)
    configuration: str | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class DataInfo:
    """Identity of one split as it was opened. fingerprint: a hash of the source's content and of every setting that changes pixels.

    inferred: what had to be found out; None for a data set that declares it all. What is read by it is part of the fingerprint.
    """

    name: str
    source: str
    revision: str | None
    fingerprint: str
    split: str
    transform: str
    inferred: Inferred | None = None


class ImageData(ABC):
    """One split of a data set. Random access; an example is a function of (seed, split, index) alone."""

    info: DataInfo
    task: Task

    @abstractmethod
    def __len__(self) -> int:
        """How many examples there are."""

    @abstractmethod
    def __getitem__(self, index: int) -> Example:
        """The example at `index`, as it is measured. Raises `BadImageError`."""

    def examples_at(self, places: Sequence[int]) -> Iterator[Example | BadImageError]:
        """The examples at these places, in this order; a bad one as the `BadImageError` that names it.

        A source that reads files in sequence, or draws many images at once, overrides it.
        """
        for index in places:
            try:
                yield self[index]
            except BadImageError as bad:
                yield bad

    def examples(self, start: int, stop: int) -> Iterator[Example | BadImageError]:
        """Examples start..stop-1 in order, as `examples_at` gives them."""
        return self.examples_at(range(start, min(stop, len(self))))

    def training_example(self, index: int, epoch: int) -> Example:
        """The example at `index` as it is trained on in `epoch`: augmented, or placed anew. Raises `BadImageError`."""
        return self[index]

    def training_examples(self, places: Sequence[int], epoch: int) -> Iterator[Example]:
        """The examples at these places as they are trained on in `epoch`. Raises `BadImageError`."""
        return (self.training_example(index, epoch) for index in places)

    def training_order(self, epoch: int, seed: int) -> Int[Tensor, "N"]:
        """All places, shuffled by (seed, epoch)."""
        return Noise.of(seed, torch.arange(len(self))).fork(epoch).keys.argsort(stable=True)

    def labels(self) -> Int[Tensor, "N"]:
        """All labels, -1 where one is missing. A source that knows them without decoding images overrides it."""
        found = self.examples(0, len(self))
        return torch.tensor([example.label if isinstance(example, Example) else -1 for example in found], dtype=torch.long)

    def empty_classes(self) -> tuple[str, ...]:
        """Classes without an image, where the source knows its labels when it is opened."""
        return ()
