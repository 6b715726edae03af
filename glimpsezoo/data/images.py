"""Natural images: decoded, resized to the task's size, and augmented for training."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from glimpsezoo.core.noise import Noise
from glimpsezoo.data.augment import Augmentation
from glimpsezoo.data.base import BadImageError, Batch, BulkImageData, DataInfo, Example, collate
from glimpsezoo.data.encoded import EncodedImage, EncodedImages, ParquetImages
from glimpsezoo.data.labels import Labels
from glimpsezoo.data.pixels import AS_STORED, Decoded, Decoding, check_resized, decoded
from glimpsezoo.errors import GlimpseZooError, one_line
from glimpsezoo.specs import Task

CHUNK = 32  # images that are decoded before they are augmented together; more would take memory if they are large


def decode(row: EncodedImage, channels: int, decoding: Decoding = AS_STORED) -> Decoded:
    """The image of a row in grey or RGB. Raises `BadImageError`, which names the row, unless the image can be decoded completely."""
    if not row.image:
        raise BadImageError(f"{row.where}: expected an image, got none{row.missing}")
    try:
        return decoded(row.image, channels, decoding)
    except GlimpseZooError:  # of the environment, not of the image
        raise
    except Exception as error:  # Pillow's decoders raise anything from OSError to struct.error
        raise BadImageError(f"{row.where}: expected an image, got one that cannot be decoded ({one_line(error)})") from None


def planes(pixels: np.ndarray) -> np.ndarray:
    """[h, w] or [h, w, C] -> [C, h, w], without a copy."""
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def to_tensor(image: Image.Image) -> Float[Tensor, "C H W"]:
    """Pixels in [0, 1]."""
    return torch.from_numpy(np.divide(planes(np.asarray(image)), np.float32(255), dtype=np.float32, order="C"))


class Fit(NamedTuple):
    """How an image is brought to a size. All numbers are (x, y) in pixels."""

    resized: tuple[int, int]
    """The whole image once it is resized."""
    corner: tuple[int, int]
    """The top left corner of the crop in it."""
    size: tuple[int, int]
    """The crop."""

    @classmethod
    def of(cls, stored: tuple[int, int], size: tuple[int, int], crop: float) -> "Fit":
        """Resize an image of `stored` (width, height) to just cover `size` / `crop`, then crop its centre to `size` (height, width).

        For a square of 224 px and crop 224 / 256, the shorter side becomes 256 px. With crop 1, an image of the right size is not changed.
        Raises ValueError for one that would have too many pixels.
        """
        height, width = size
        scale = max(width / stored[0], height / stored[1]) / crop
        resized = (max(width, round(stored[0] * scale)), max(height, round(stored[1] * scale)))
        if resized != stored:
            check_resized(*resized)
        return cls(resized, ((resized[0] - width) // 2, (resized[1] - height) // 2), (width, height))

    def __call__(self, image: Image.Image) -> Image.Image:
        if self.resized != image.size:
            image = image.resize(self.resized, Image.Resampling.BILINEAR)
        (left, top), (width, height) = self.corner, self.size
        return image if image.size == self.size else image.crop((left, top, left + width, top + height))


def fitted(image: Image.Image, size: tuple[int, int], crop: float) -> Image.Image:
    """An image at `size` (height, width), as `Fit` says."""
    return Fit.of(image.size, size, crop)(image)


def _fitted(row: EncodedImage, image: Image.Image, size: tuple[int, int], crop: float) -> Image.Image:
    """The image of a row at `size`. Raises `BadImageError`, which names the row, for too many pixels."""
    try:
        return fitted(image, size, crop)
    except ValueError as error:
        raise BadImageError(f"{row.where}: expected an image that can be resized, got {error}") from None


class Stored(NamedTuple):
    """A decoded image, neither resized nor augmented, and its label."""

    pixels: np.ndarray
    """[h, w] for grey and [h, w, 3] for RGB, 8 bits."""
    label: int


@dataclass(frozen=True)
class SplitSource:
    """The encoded images of a split, and how they are read."""

    images: EncodedImages
    """The whole source, which may hold other splits, too."""
    chosen: np.ndarray
    """[N] the numbers of the split's images in the source, ascending."""
    labels: Labels
    """How stored labels become class numbers."""
    crop: float
    """See `fitted`."""
    numbers: np.ndarray | None = None
    """The class numbers of all images of the source, if they are known before images are read."""
    decoding: Decoding = AS_STORED
    """How pixels are read."""
    every_class: bool = False
    """Whether each class must have an image in this split; otherwise, one in the source is enough."""


class NaturalImages(BulkImageData):
    """Images of any size and format, decoded on access."""

    def __init__(self, info: DataInfo, task: Task, source: SplitSource, augmentation: Augmentation | None = None) -> None:
        self.info, self.task, self.source, self.augmentation = info, task, source, augmentation

    def __len__(self) -> int:
        return len(self.source.chosen)

    def examples_at(self, places: Sequence[int]) -> Iterator[Example | BadImageError]:
        numbers = [int(self.source.chosen[place]) for place in places]
        for number, row in zip(numbers, self.source.images.at(numbers), strict=True):
            try:
                image, conversions = decode(row, self.task.channels, self.source.decoding)
                pixels = to_tensor(_fitted(row, image, self.task.image_size, self.source.crop))
                yield Example(pixels, self.source.labels.checked(row), number, number, conversions)
            except BadImageError as bad:
                yield BadImageError(f"{self.info.name}, {self.info.split} split: {bad}")

    def training_batch(self, places: Sequence[int], epoch: int) -> Batch:
        """Augmented images; each is a function of (seed, row, epoch)."""
        if self.augmentation is None:
            return collate(self.examples_at(places), self.task)
        parts = []
        for start in range(0, len(places), CHUNK):
            here = places[start : start + CHUNK]
            decoded = self.stored(here)
            pixels = [torch.from_numpy(planes(image.pixels)) for image in decoded]
            parts.append(self.augmented(here, pixels, [image.label for image in decoded], epoch))
        images, labels, ids, groups = (torch.cat(column) for column in zip(*(part[:4] for part in parts), strict=True))
        return Batch(images, labels, ids, groups)

    def stored(self, places: Sequence[int]) -> list[Stored]:
        """The decoded images at these places, neither resized nor augmented. Raises `BadImageError`."""
        found = []
        for row in self.source.images.at([int(self.source.chosen[place]) for place in places]):
            try:
                image = decode(row, self.task.channels, self.source.decoding).image
                found.append(Stored(np.array(image), self.source.labels.checked(row)))
            except BadImageError as bad:
                raise BadImageError(f"{self.info.name}, {self.info.split} split: {bad}") from None
        return found

    def augmented(self, places: Sequence[int], images: Sequence[Tensor], labels: Sequence[int], epoch: int) -> Batch:
        """The decoded images [C, h, w] of these places as training sees them in `epoch`. They stay on their device."""
        assert self.augmentation is not None
        ids = torch.from_numpy(self.source.chosen[list(places)]).long()
        return Batch(self.augmentation(images, ids, epoch).float().div_(255), torch.tensor(labels), ids, ids)

    def training_order(self, epoch: int, seed: int) -> Int[Tensor, "N"]:
        """All places, shuffled by (seed, epoch). For a stream, the windows are shuffled, and the rows within each window."""
        order = super().training_order(epoch, seed)
        if not isinstance(self.source.images, ParquetImages):
            return order
        ends = torch.tensor([window.stop for window in self.source.images.windows()])
        window = torch.bucketize(torch.from_numpy(self.source.chosen), ends, right=True)  # [N]: the window of each place
        turn = Noise.of(seed, torch.arange(len(ends))).fork(epoch).keys.argsort(stable=True).argsort()  # [windows]
        return order[turn[window[order]].argsort(stable=True)]

    def labels(self) -> Int[Tensor, "N"]:
        numbers = self.source.labels.numbers_of(self.source.images) if self.source.numbers is None else self.source.numbers
        return torch.from_numpy(numbers[self.source.chosen])

    def empty_classes(self) -> tuple[str, ...]:
        """Classes without an image in the source, or in this split if `every_class`."""
        if self.source.numbers is None:
            return ()
        numbers = self.source.numbers[self.source.chosen] if self.source.every_class else self.source.numbers
        present = set(numbers.tolist())
        return tuple(name for label, name in enumerate(self.task.classes) if label not in present)
