"""Small grey digits on a larger canvas: every placement is a function of (seed, split, digit, placement)."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int, UInt8
from torch import Tensor

from glimpsezoo.data.base import DataInfo, Example, ImageData
from glimpsezoo.noise import Noise
from glimpsezoo.specs import Task

SPLIT_NUMBERS = {"train": 0, "calibration": 1, "test": 2}
PLACE = 0  # the lanes of an image's noise: where it stands


@dataclass(frozen=True)
class Glyphs:
    """Digits of one split. pixels: [N, h, w] in 0..255. labels: [N]. ids: [N], each digit's number in its source."""

    pixels: UInt8[Tensor, "N h w"]
    labels: Int[Tensor, "N"]
    ids: Int[Tensor, "N"]

    def only(self, chosen: Bool[Tensor, "N"]) -> "Glyphs":
        return Glyphs(self.pixels[chosen], self.labels[chosen], self.ids[chosen])

    def digest(self) -> str:
        """Hash of the content."""
        whole = hashlib.sha256(str(tuple(self.pixels.shape)).encode())
        for part in (self.pixels, self.labels, self.ids):
            whole.update(part.contiguous().numpy().tobytes())
        return whole.hexdigest()


def every(n: int, labels: Int[Tensor, "N"], candidates: Bool[Tensor, "N"]) -> Bool[Tensor, "N"]:
    """A stratified n-th of the candidates: of each class the n-th, the 2n-th, ... in the source's order."""
    chosen = torch.zeros_like(candidates)
    for label in labels.unique():
        members = ((labels == label) & candidates).nonzero().squeeze(1)
        chosen[members[n - 1 :: n]] = True
    return chosen


class PlacedDigits(ImageData):
    """Each digit at `places` places of a canvas of zeros; in training, at a new one each epoch.

    The `places` examples of a digit share its `group`, and lie side by side in the split's order.
    """

    def __init__(self, info: DataInfo, task: Task, glyphs: Glyphs, *, places: int, seed: int) -> None:
        self.info, self.task, self.places, self.seed = info, task, places, seed
        self.glyphs = glyphs
        self._offsets = torch.stack([self.offsets(placement) for placement in range(places)], dim=1)  # [N, places, 2]
        self._epoch: tuple[int, Tensor] = (-1, self._offsets[:, 0])

    def offsets(self, placement: int) -> Int[Tensor, "N 2"]:
        """The top left corners (y, x) of all digits in one placement; uniform over the places that hold a whole digit."""
        height, width = self.task.image_size
        _, h, w = self.glyphs.pixels.shape
        noise = Noise.of(self.seed, self.glyphs.ids).fork(placement)
        free = torch.tensor([height - h + 1, width - w + 1])
        return (noise.uniform(SPLIT_NUMBERS[self.info.split], 2, lane=PLACE) * free).long()

    def __len__(self) -> int:
        return len(self.glyphs.labels) * self.places

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(index)
        digit, placement = divmod(index, self.places)
        return self._placed(digit, self._offsets[digit, placement], int(self.glyphs.ids[digit]) * self.places + placement)

    def examples(self, start: int, stop: int) -> Iterator[Example]:
        """A block at once, which is several times as quick as one by one."""
        index = torch.arange(start, min(stop, len(self)))
        digit, placement = index // self.places, index % self.places
        canvas = torch.zeros(len(index), *self.task.image_size)
        _, h, w = self.glyphs.pixels.shape
        corner = self._offsets[digit, placement]  # [n, 2]
        rows = (corner[:, 0, None] + torch.arange(h))[:, :, None]  # [n, h, 1]
        columns = (corner[:, 1, None] + torch.arange(w))[:, None, :]  # [n, 1, w]
        canvas[torch.arange(len(index))[:, None, None], rows, columns] = self.glyphs.pixels[digit] / 255
        ids = (self.glyphs.ids[digit] * self.places + placement).tolist()
        for image, label, id_, group in zip(
            canvas[:, None], self.glyphs.labels[digit].tolist(), ids, self.glyphs.ids[digit].tolist(), strict=True
        ):
            yield Example(image, label, id_, group)

    def training_example(self, index: int, epoch: int) -> Example:
        """The digit of `index` at a place that no measured placement and no other epoch shares (but by chance)."""
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self.offsets(self.places + epoch))
        digit = index // self.places
        return self._placed(digit, self._epoch[1][digit], int(self.glyphs.ids[digit]) * self.places + index % self.places)

    def _placed(self, digit: int, corner: Tensor, id_: int) -> Example:
        glyph = self.glyphs.pixels[digit]
        y, x = corner.tolist()
        image = torch.zeros(1, *self.task.image_size)
        image[0, y : y + glyph.shape[0], x : x + glyph.shape[1]] = glyph / 255
        return Example(image, int(self.glyphs.labels[digit]), id_, int(self.glyphs.ids[digit]))
