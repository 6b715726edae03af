"""Small grey digits on a larger canvas. Placements, noise, textures and clutter are a function of (seed, split, digit, placement)."""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Num, UInt8
from torch import Tensor

from glimpsezoo.core.noise import Noise
from glimpsezoo.data.base import BadImageError, Batch, BulkImageData, DataInfo, Example
from glimpsezoo.data.texture import SIDE, grass
from glimpsezoo.specs import Task

SPLIT_NUMBERS = {"train": 0, "calibration": 1, "test": 2}
PLACE, NOISE, TEXTURE, DISTORTION, CLUTTER = range(5)  # lanes of an image's noise
DEVIATION = 0.3  # standard deviation of the Gaussian noise, with black at 0 and white at 1 (MGNet, appendix B)
CORRUPTED = 0.1  # share of pixels that salt and pepper hits, half of them white (pyramid, section 5.1)
PIECE = 8  # side in px of a piece of clutter (RAM, section 4.1)
PIECES = {60: 4, 100: 8}  # pieces of clutter by the side of the canvas
CHUNK = 128  # images drawn at once, which bounds memory for any batch size

Treatment = Literal["none", "gaussian", "salt-and-pepper", "texture", "clutter"]


@dataclass(frozen=True)
class Glyphs:
    """The digits of one split."""

    pixels: UInt8[Tensor, "N h w"]
    """In 0..255."""
    labels: Int[Tensor, "N"]
    ids: Int[Tensor, "N"]
    """The number of each digit in its source."""
    bad: Mapping[int, str] = field(default_factory=dict)
    """Place in 0..N-1 -> what is wrong with this digit."""

    def digest(self) -> str:
        """Hash of the content."""
        whole = hashlib.sha256(str(tuple(self.pixels.shape)).encode())
        for part in (self.pixels, self.labels, self.ids):
            whole.update(part.contiguous().numpy().tobytes())
        return whole.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Placing:
    """How digits become images. Its repr is part of fingerprints: a renamed field would change the identity of the data."""

    canvas: int
    """The side of the canvas in px."""
    places: int = 1
    """The number of examples made from each digit."""
    fixed: bool = False
    """Whether training uses the same places in every epoch, instead of drawing new ones."""
    shift: int = 0
    """How far a digit may lie beyond the canvas, in px."""
    treatment: Treatment = "none"
    """What is done to the canvas."""
    size: int | None = None
    """The side in px to which the canvas is rescaled by area."""
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Distortion:
    """How training distorts digits, drawn again in every epoch."""

    rotation: float = 0.0
    """The largest angle either way, in degrees."""
    zoom: float = 0.0
    """The largest relative change of width and of height, either way."""
    noise_epochs: int = 0
    """The number of epochs in which the Gaussian noise is weaker and grows: a model that finds clean digits learns to find noisy ones."""

    def __call__(self, glyphs: UInt8[Tensor, "n h w"], draws: Float[Tensor, "n 3"]) -> Float[Tensor, "n h w"]:
        """Rotate and stretch each glyph about its centre. draws: in [0, 1), for the angle and the two factors."""
        angle, wide, high = (2 * draws - 1).mul(torch.tensor([math.radians(self.rotation), self.zoom, self.zoom])).unbind(1)
        cosine, sine, nothing = angle.cos(), angle.sin(), torch.zeros_like(angle)
        wide, high = 1 + wide, 1 + high
        rows = [torch.stack([cosine / wide, sine / wide, nothing], 1), torch.stack([-sine / high, cosine / high, nothing], 1)]
        grid = F.affine_grid(torch.stack(rows, 1), [len(glyphs), 1, *glyphs.shape[1:]], align_corners=False)
        return F.grid_sample(glyphs[:, None].float(), grid, align_corners=False)[:, 0]

    def deviation(self, epoch: int) -> float:
        """The standard deviation of the Gaussian noise in an epoch (from 0): `DEVIATION` after `noise_epochs`."""
        return DEVIATION * min(1.0, (epoch + 1) / (self.noise_epochs + 1))


class PlacedDigits(BulkImageData):
    """Each digit at one or more places of a canvas of zeros.

    The examples of a digit share its `group` and are neighbours in the split's order.
    """

    def __init__(self, info: DataInfo, task: Task, glyphs: Glyphs, placing: Placing, distortion: Distortion | None = None) -> None:
        self.info, self.task, self.glyphs, self.placing, self.distortion = info, task, glyphs, placing, distortion

    def __len__(self) -> int:
        return len(self.glyphs.labels) * self.placing.places

    def examples_at(self, places: Sequence[int]) -> Iterator[Example | BadImageError]:
        index = torch.tensor(list(places), dtype=torch.long)
        for chunk in index.split(CHUNK):
            digit, place = chunk // self.placing.places, chunk % self.placing.places
            images, groups = self.draw(digit, place), self.glyphs.ids[digit]
            ids = groups * self.placing.places + place
            rows = zip(images, self.glyphs.labels[digit].tolist(), ids.tolist(), groups.tolist(), digit.tolist(), strict=True)
            for image, label, id_, group, source in rows:
                wrong = self.glyphs.bad.get(source)
                yield BadImageError(wrong) if wrong else Example(image, label, id_, group)

    def training_batch(self, places: Sequence[int], epoch: int) -> Batch:
        """The digits at new places: independent of those that are measured and of other epochs, unless placements are fixed."""
        index = torch.tensor(list(places), dtype=torch.long)
        digit = index // self.placing.places
        if wrong := next((self.glyphs.bad[source] for source in digit.tolist() if source in self.glyphs.bad), None):
            raise BadImageError(wrong)
        fresh = 0 if self.placing.fixed else (epoch + 1) * self.placing.places
        placement = fresh + index % self.placing.places
        images = [self.draw(*chunk, epoch) for chunk in zip(digit.split(CHUNK), placement.split(CHUNK), strict=True)]
        groups = self.glyphs.ids[digit]
        together = images[0] if len(images) == 1 else torch.cat(images)  # most batches are one chunk, which need not be copied
        return Batch(together, self.glyphs.labels[digit], groups * self.placing.places + index % self.placing.places, groups)

    def labels(self) -> Int[Tensor, "N"]:
        return self.glyphs.labels.repeat_interleave(self.placing.places)

    def empty_classes(self) -> tuple[str, ...]:
        present = set(self.glyphs.labels.tolist())
        return tuple(name for label, name in enumerate(self.task.classes) if label not in present)

    def draw(self, digit: Int[Tensor, "n"], placement: Int[Tensor, "n"], epoch: int | None = None) -> Float[Tensor, "n 1 H W"]:
        """Images in [0, 1] of these digits in these placements, distorted as in training if an epoch is given."""
        side, shift, size = self.placing.canvas, self.placing.shift, self.placing.size
        noise = Noise.of(self.placing.seed, self.glyphs.ids[digit]).fork(placement)
        split = SPLIT_NUMBERS[self.info.split]
        glyphs, deviation = self.glyphs.pixels[digit], DEVIATION  # [n, h, w]
        if self.distortion is not None and epoch is not None:
            deviation = self.distortion.deviation(epoch)
            glyphs = self.distortion(glyphs, noise.fork(epoch).uniform(split, 3, lane=DISTORTION))
        images = _pasted(glyphs, side + 2 * shift, noise.uniform(split, 2, lane=PLACE))
        images = images[:, shift : shift + side, shift : shift + side]  # [n, S, S]
        if self.placing.treatment == "gaussian":
            images = _with_gaussian(images, noise.uniform(split, side * side, lane=NOISE), deviation)
        elif self.placing.treatment == "salt-and-pepper":
            images = _with_salt_and_pepper(images, noise.uniform(split, side * side, lane=NOISE))
        elif self.placing.treatment == "texture":
            images = _over_grass(images, self.placing.seed, noise.uniform(split, 2, lane=TEXTURE))
        elif self.placing.treatment == "clutter":
            images = _with_clutter(images, self.glyphs.pixels, digit, noise.uniform(split, 5 * PIECES[side], lane=CLUTTER))
        images = images[:, None]  # [n, 1, S, S]
        return images if size in (None, side) else F.avg_pool2d(images, side // size)


def _pasted(glyphs: Num[Tensor, "n h w"], side: int, draws: Float[Tensor, "n 2"]) -> Float[Tensor, "n S S"]:
    """Glyphs (0..255) on black canvases of `side` px. Every place that contains the whole glyph is equally likely."""
    n, h, w = glyphs.shape
    corner = (draws * torch.tensor([side - h + 1, side - w + 1])).long()  # [n, 2]: (y, x) of the top left corner
    rows = (corner[:, 0, None] + torch.arange(h))[:, :, None]  # [n, h, 1]
    columns = (corner[:, 1, None] + torch.arange(w))[:, None, :]  # [n, 1, w]
    canvas = torch.zeros(n, side, side)
    canvas[torch.arange(n)[:, None, None], rows, columns] = glyphs / 255
    return canvas


def _with_gaussian(images: Float[Tensor, "n S S"], draws: Float[Tensor, "n pixels"], deviation: float) -> Float[Tensor, "n S S"]:
    """Add zero-mean Gaussian noise, and clip to [0, 1]. The inverse of the normal distribution takes one uniform draw per pixel."""
    noise = torch.special.ndtri(draws.double()).float() * deviation
    return (images + noise.view_as(images)).clamp(0, 1)


def _with_salt_and_pepper(images: Float[Tensor, "n S S"], draws: Float[Tensor, "n pixels"]) -> Float[Tensor, "n S S"]:
    """Replace exactly a tenth of the pixels of every image, half of them by white and half by black."""
    hit = round(CORRUPTED * draws.shape[1])
    chosen = draws.argsort(dim=1, stable=True)[:, :hit]  # [n, hit]
    flat = images.flatten(1).scatter(1, chosen[:, : hit // 2], 1.0)
    return flat.scatter(1, chosen[:, hit // 2 :], 0.0).view_as(images)


def _over_grass(images: Float[Tensor, "n S S"], seed: int, draws: Float[Tensor, "n 2"]) -> Float[Tensor, "n S S"]:
    """Put the digits, with brightness as opacity, over random cuts of one field of grass."""
    side = images.shape[-1]
    corner = (draws * SIDE).long()  # [n, 2]; the field repeats at its edges
    rows = ((corner[:, 0, None] + torch.arange(side)) % SIDE)[:, :, None]  # [n, S, 1]
    columns = ((corner[:, 1, None] + torch.arange(side)) % SIDE)[:, None, :]  # [n, 1, S]
    background = grass(seed)[rows, columns] / 255
    return images + (1 - images) * background


def _with_clutter(
    images: Float[Tensor, "n S S"], glyphs: UInt8[Tensor, "N h w"], digit: Int[Tensor, "n"], draws: Float[Tensor, "n draws"]
) -> Float[Tensor, "n S S"]:
    """Add pieces of other digits of the split at random places, and clip to 1. digit: the place of each image's own digit in `glyphs`.

    Each piece takes five draws: one for its digit, two for where it is cut out, and two for where it lies, anywhere inside the canvas.
    """
    (count, h, w), side, pixel = glyphs.shape, images.shape[-1], torch.arange(PIECE)
    for draw in draws.unflatten(1, (-1, 5)).unbind(1):  # [n, 5]
        other = (digit + 1 + (draw[:, 0] * (count - 1)).long()) % count  # [n], never the image's own digit
        corner = (draw[:, 1:] * torch.tensor([h - PIECE + 1, w - PIECE + 1, side - PIECE + 1, side - PIECE + 1])).long()  # [n, 4]
        top, left, row, column = (corner[:, :, None] + pixel).unbind(1)  # [n, 8] each
        cut = glyphs[other[:, None, None], top[:, :, None], left[:, None, :]] / 255  # [n, 8, 8]
        images[torch.arange(len(images))[:, None, None], row[:, :, None], column[:, None, :]] += cut
    return images.clamp(max=1)
