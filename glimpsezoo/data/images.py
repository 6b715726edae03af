"""Natural images: decoded, brought to the task's size, and varied for training."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from glimpsezoo.data.augment import Augmentation
from glimpsezoo.data.base import BadImageError, DataInfo, Example, ImageData
from glimpsezoo.data.labels import Labels
from glimpsezoo.data.pixels import AS_STORED, Decoded, Decoding, decoded
from glimpsezoo.data.rows import ParquetRows, Row, Rows
from glimpsezoo.errors import one_line
from glimpsezoo.noise import Noise
from glimpsezoo.specs import Task


def decode(row: Row, channels: int, decoding: Decoding = AS_STORED) -> Decoded:
    """The image of a row, in grey or RGB. Raises `BadImageError` naming the row, if it cannot be decoded to its last line."""
    if not row.image:
        raise BadImageError(f"{row.where}: expected an image, got none{row.missing}")
    try:
        return decoded(row.image, channels, decoding)
    except Exception as error:  # Pillow's decoders raise anything from OSError to struct.error
        raise BadImageError(f"{row.where}: expected an image, got one that cannot be decoded ({one_line(error)})") from None


def to_tensor(image: Image.Image) -> Float[Tensor, "C H W"]:
    """Pixels in [0, 1]."""
    pixels = np.asarray(image)  # [H, W] or [H, W, C], 8 bits
    pixels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)  # [C, H, W]
    return torch.from_numpy(np.divide(pixels, np.float32(255), dtype=np.float32, order="C"))


def fitted(image: Image.Image, size: tuple[int, int], crop: float) -> Image.Image:
    """The centre of an image at `size` (height, width): it covers the share `crop` of the image along the side that is the tighter fit.

    Resized so that the image just covers size / crop, then cropped: with a square of 224 px and crop 224 / 256, the shorter side
    becomes 256. An image that has its size already is left as it is where crop is 1.
    """
    height, width = size
    scale = max(height / image.height, width / image.width) / crop
    grown = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
    if grown != image.size:
        image = image.resize(grown, Image.Resampling.BILINEAR)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image if image.size == (width, height) else image.crop((left, top, left + width, top + height))


@dataclass(frozen=True)
class ImageRows:
    """Which rows a split has. chosen: [N] their numbers in the source, ascending. crop: see `fitted`. decoding: how pixels are read.

    numbers: the labels of all rows of the source, where it tells them before images are read. every_class: whether each class is to have
    a row in this split, and not only in the source.
    """

    rows: Rows
    chosen: np.ndarray
    labels: Labels
    crop: float
    numbers: np.ndarray | None = None
    decoding: Decoding = AS_STORED
    every_class: bool = False


class NaturalImages(ImageData):
    """Images of any size and format, decoded when they are asked for."""

    def __init__(self, info: DataInfo, task: Task, source: ImageRows, augmentation: Augmentation | None = None) -> None:
        self.info, self.task, self.source, self.augmentation = info, task, source, augmentation

    def __len__(self) -> int:
        return len(self.source.chosen)

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(index)
        example = next(self.examples_at([index]))
        if isinstance(example, BadImageError):
            raise example
        return example

    def examples_at(self, places: Sequence[int]) -> Iterator[Example | BadImageError]:
        numbers = [int(self.source.chosen[place]) for place in places]
        for number, row in zip(numbers, self.source.rows.at(numbers), strict=True):
            try:
                image, conversions = decode(row, self.task.channels, self.source.decoding)
                pixels = to_tensor(fitted(image, self.task.image_size, self.source.crop))
                yield Example(pixels, self.source.labels.checked(row), number, number, conversions)
            except BadImageError as bad:
                yield BadImageError(f"{self.info.name}, {self.info.split} split: {bad}")

    def training_example(self, index: int, epoch: int) -> Example:
        return next(self.training_examples([index], epoch))

    def training_examples(self, places: Sequence[int], epoch: int) -> Iterator[Example]:
        """Augmented images: each a function of (seed, split, row, epoch)."""
        if self.augmentation is None:
            yield from (self[place] for place in places)
            return
        numbers = [int(self.source.chosen[place]) for place in places]
        for number, row in zip(numbers, self.source.rows.at(numbers), strict=True):
            try:
                image = decode(row, self.task.channels, self.source.decoding).image
                image = self.augmentation(image, (self.info.split, number, epoch))
                yield Example(to_tensor(image), self.source.labels.checked(row), number, number)
            except BadImageError as bad:
                raise BadImageError(f"{self.info.name}, {self.info.split} split: {bad}") from None

    def training_order(self, epoch: int, seed: int) -> Int[Tensor, "N"]:
        """All places, shuffled by (seed, epoch); those of a stream by windows of rows, and within each."""
        order = super().training_order(epoch, seed)
        if not isinstance(self.source.rows, ParquetRows):
            return order
        ends = torch.tensor([window.stop for window in self.source.rows.windows()])
        window = torch.bucketize(torch.from_numpy(self.source.chosen), ends, right=True)  # [N]: of each place
        turn = Noise.of(seed, torch.arange(len(ends))).fork(epoch).keys.argsort(stable=True).argsort()  # [windows]
        return order[turn[window[order]].argsort(stable=True)]

    def labels(self) -> Int[Tensor, "N"]:
        numbers = self.source.labels.numbers_of(self.source.rows) if self.source.numbers is None else self.source.numbers
        return torch.from_numpy(numbers[self.source.chosen])

    def empty_classes(self) -> tuple[str, ...]:
        """Classes without an image in the source; that one has none in a part of it is no fault, unless `every_class`."""
        if self.source.numbers is None:
            return ()
        numbers = self.source.numbers[self.source.chosen] if self.source.every_class else self.source.numbers
        present = set(numbers.tolist())
        return tuple(name for label, name in enumerate(self.task.classes) if label not in present)
