"""What the harness expects of a data set: examples by index, with pixels in [0, 1], an id, a group and a label."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from glimpsezoo.core.noise import Noise
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.specs import Task

OnBadImage = Literal["fail", "skip"]


class BadImageError(GlimpseZooError):
    """An example that cannot be measured: a corrupt image, a missing label, a label out of range. The message names the row."""


class Example(NamedTuple):
    """One image with its label."""

    image: Tensor
    """[C, H, W] in [0, 1]."""
    label: int
    id: int
    """Unique in its split, and the same in every run."""
    group: int
    """The source image; examples made from one image share it."""
    conversions: tuple[str, ...] = ()
    """Changes of the stored pixels beyond what the file format requires, in words."""


class Batch(NamedTuple):
    """Examples of one size, stacked."""

    images: Float[Tensor, "B C H W"]
    labels: Int[Tensor, "B"]
    ids: Int[Tensor, "B"]
    groups: Int[Tensor, "B"]
    skipped: tuple[str, ...] = ()
    """One line per bad image that was left out."""
    conversions: tuple[tuple[str, int], ...] = ()
    """(a change of stored pixels in words, the number of images it was made to)."""

    def only(self) -> Example:
        """The example of a batch of one."""
        return Example(self.images[0], int(self.labels), int(self.ids), int(self.groups))


def good(example: Example | BadImageError) -> Example:
    """The example. Raises the `BadImageError` that stands in its place."""
    if isinstance(example, BadImageError):
        raise example
    return example


def collate(examples: Iterable[Example | BadImageError], task: Task, on_bad_image: OnBadImage = "fail") -> Batch:
    """Stack examples of the task's size into a batch. A bad one is raised, or left out and named in `skipped`."""
    whole, skipped = [], []
    for example in examples:
        if isinstance(example, Example):
            whole.append(example)
        elif on_bad_image == "skip":
            skipped.append(str(example))
        else:
            raise example
    images = torch.stack([e.image for e in whole]) if whole else torch.empty(0, task.channels, *task.image_size)
    labels, ids, groups = (
        torch.tensor(column, dtype=torch.long) for column in ([e.label for e in whole], [e.id for e in whole], [e.group for e in whole])
    )
    conversions = Counter(words for example in whole for words in example.conversions)
    return Batch(images, labels, ids, groups, tuple(skipped), tuple(sorted(conversions.items())))


@dataclass(frozen=True, kw_only=True)
class InferredFacts:
    """What was inferred about a data set that does not declare it."""

    classes: tuple[str, ...]
    """The names of the classes in label order."""
    splits: Mapping[str, str]
    """Our split -> the part of the data set that it comes from, in words."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """'image' and 'label' -> the column that holds it, for data in columns."""
    configuration: str | None = None
    """The configuration that was chosen, for data sets with named configurations."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Why -> how many files were left out, and some of their names."""
    notes: tuple[str, ...] = ()
    """What else a reader should know."""


@dataclass(frozen=True, kw_only=True)
class DataInfo:
    """The identity of one split as it was opened."""

    name: str
    """The name of the data set, as users type it."""
    source: str
    """Where the images come from."""
    revision: str | None
    """The commit of the source, if it has one."""
    fingerprint: str
    """A hash of the source's content and of every setting that changes pixels."""
    split: str
    transform: str
    """What is done to the images before a model sees them."""
    inferred: InferredFacts | None = None
    """What was inferred; None for a data set that declares everything. The fingerprint covers it as far as it decides what is read."""


class ImageData(ABC):
    """One split of a data set. Random access: an example is a function of (seed, split, index) alone."""

    info: DataInfo
    task: Task

    @abstractmethod
    def __len__(self) -> int:
        """The number of examples."""

    @abstractmethod
    def __getitem__(self, index: int) -> Example:
        """The example at `index`, without augmentation. Raises `BadImageError`."""

    def examples_at(self, places: Sequence[int]) -> Iterator[Example | BadImageError]:
        """The examples at these places, in this order. A bad one is yielded as the `BadImageError` that names it.

        Override it in a source that reads files in sequence or draws many images at once.
        """
        for index in places:
            try:
                yield self[index]
            except BadImageError as bad:
                yield bad

    def examples(self, start: int, stop: int) -> Iterator[Example | BadImageError]:
        """Examples start..stop-1 in order, as `examples_at` yields them."""
        return self.examples_at(range(start, min(stop, len(self))))

    def training_example(self, index: int, epoch: int) -> Example:
        """The example at `index` as training sees it in `epoch`: augmented, or at a new place. Raises `BadImageError`."""
        return self[index]

    def training_batch(self, places: Sequence[int], epoch: int) -> Batch:
        """The examples at these places as training sees them in `epoch`. Raises `BadImageError`.

        Override it in a source that draws or augments many images at once.
        """
        return collate((self.training_example(index, epoch) for index in places), self.task)

    def training_order(self, epoch: int, seed: int) -> Int[Tensor, "N"]:
        """All places, shuffled by (seed, epoch)."""
        return Noise.of(seed, torch.arange(len(self))).fork(epoch).keys.argsort(stable=True)

    def labels(self) -> Int[Tensor, "N"]:
        """All labels, -1 for a missing one. Override it in a source that knows them without decoding images."""
        found = self.examples(0, len(self))
        return torch.tensor([example.label if isinstance(example, Example) else -1 for example in found], dtype=torch.long)

    def empty_classes(self) -> tuple[str, ...]:
        """Classes without an image, if the source knows its labels when it is opened."""
        return ()


class BulkImageData(ImageData):
    """A source that reads or draws many examples at once: a single one is the only one of a batch."""

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return good(next(self.examples_at([index])))

    @abstractmethod
    def examples_at(self, places: Sequence[int]) -> Iterator[Example | BadImageError]: ...

    def training_example(self, index: int, epoch: int) -> Example:
        return self.training_batch([index], epoch).only()

    @abstractmethod
    def training_batch(self, places: Sequence[int], epoch: int) -> Batch: ...
