"""Where a model looks: flat regions of a batch, and the decision that chose them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from glimpsezoo.core.batched import Batched, gather, join, join_rows, repeated, rows_of_each, select_rows
from glimpsezoo.core.symbolic import exporting, tensor_cache

Made = Literal["given", "regressed", "sampled", "mode", "top-k", "searched"]


@tensor_cache(1024)
def _numbers(batch: int, device: torch.device) -> Int[Tensor, "B"]:
    """0 to B - 1, always the same tensor, so that `Regions.single` knows it without looking into it."""
    numbers = torch.arange(batch, device=device)
    numbers.of_each_image = True  # type: ignore[attr-defined]
    return numbers


@dataclass(frozen=True, kw_only=True)
class Regions(Batched):
    """N regions of a batch of B images, flat: one per image, several in parallel or a variable number fit without padding."""

    image: Int[Tensor, "N"]
    """The row of each region's image in the batch. Regions are ordered by image: the rows never decrease."""
    centre: Float[Tensor, "N 2"]
    """As (x, y) in [-1, 1], with the image's edges at -1 and 1."""
    scale: Float[Tensor, "N"]
    """The share of the image's width that the region covers; 1 is the whole image."""
    level: Int[Tensor, "N"]
    """The pyramid level, or the index of the glimpse network that takes the region."""
    parent: Int[Tensor, "N"]
    """The ordinal of the parent among all regions of the same image so far (0 is its first region); -1 for none."""
    batch: int
    """B, the number of images."""
    ratio: float = 1.0
    """The share of the image's height over that of its width: 1 for regions in the image's shape, W / H for squares of pixels."""

    @property
    def half(self) -> Float[Tensor, "N 2"]:
        """Half of every region's sides along x and y, where the image reaches from -1 to 1."""
        if self.ratio == 1:
            return self.scale[:, None].expand(-1, 2)
        return torch.stack([self.scale, self.scale * self.ratio], 1)

    @classmethod
    def one_each(
        cls,
        centre: Float[Tensor, "B 2"],
        scale: Float[Tensor, "B"] | float,
        *,
        level: int = 0,
        parent: int = -1,
        ratio: float = 1.0,
    ) -> Self:
        """One region per image."""
        batch, device = len(centre), centre.device
        if not isinstance(scale, Tensor):
            scale = repeated(scale, batch, centre.dtype, device)
        level_of, parent_of = (repeated(value, batch, torch.long, device) for value in (level, parent))
        return cls(image=_numbers(batch, device), centre=centre, scale=scale, level=level_of, parent=parent_of, batch=batch, ratio=ratio)

    @classmethod
    def whole_image(cls, images: Float[Tensor, "B C H W"], *, level: int = 0) -> Self:
        """The whole image, once per image: the usual first decision."""
        return cls.one_each(images.new_zeros(len(images), 2), 1.0, level=level)

    def __len__(self) -> int:
        return len(self.image)

    @property
    def single(self) -> bool:
        """Whether every image is known to have exactly one region, as from `one_each`: then nothing needs to be counted or copied."""
        if exporting():
            return hasattr(self.image, "of_each_image")
        return self.image is _numbers(self.batch, self.image.device)

    def counts(self) -> Int[Tensor, "B"]:
        """How many regions each image has."""
        if self.single:
            return repeated(1, self.batch, torch.long, self.image.device)
        return rows_of_each(self.image, self.batch)

    def images_of(self, images: Float[Tensor, "B *rest"]) -> Float[Tensor, "N *rest"]:
        """The image of every region, or the row of any other tensor with one row per image. Single regions need no copy."""
        return images if self.single else images[self.image]

    def select(self, index: Int[Tensor, "n"]) -> Self:
        if self.single:
            return self._at(index, _numbers(len(index), index.device), len(index))
        position, image = select_rows(self.image, self.batch, index)
        return self._at(position, image, len(index))

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        batch = sum(part.batch for part in parts)
        if all(part.single for part in parts):
            image = _numbers(batch, parts[0].image.device)
        else:
            image = join_rows([(part.image, part.batch) for part in parts])
        rows = ("centre", "scale", "level", "parent")
        return replace(parts[0], image=image, batch=batch, **{name: join([getattr(part, name) for part in parts]) for name in rows})

    def keep(self, mask: Bool[Tensor, "N"]) -> Self:
        """Only the regions where `mask` [N] is true; the batch stays the same."""
        position = mask.nonzero().squeeze(1)
        return self._at(position, self.image[position], self.batch)

    def _at(self, position: Int[Tensor, "M"], image: Int[Tensor, "M"], batch: int) -> Self:
        centre, scale, level, parent = gather((self.centre, self.scale, self.level, self.parent), position)
        return replace(self, image=image, centre=centre, scale=scale, level=level, parent=parent, batch=batch)

    def __post_init__(self) -> None:
        shape, count = self.image.shape, len(self.image)
        if self.centre.shape != (count, 2) or not shape == self.scale.shape == self.level.shape == self.parent.shape:
            got = {name: tuple(getattr(self, name).shape) for name in ("centre", "scale", "level", "parent")}
            raise ValueError(f"expected centre [N, 2] and scale, level, parent [N] for N = {count} regions, got {got}")


@dataclass(frozen=True, kw_only=True)
class Decision(Batched):
    """The regions of the next step and how they were chosen. A plugin may subclass it to keep what its training needs."""

    regions: Regions
    made: Made
    """How the regions were chosen."""
    log_prob: Float[Tensor, "B"]
    """In nats, over all choices of an image, taken or not; zero where nothing was drawn."""
    entropy: Float[Tensor, "B"]
    """In nats, like `log_prob`."""

    @classmethod
    def certain(cls, regions: Regions, made: Made = "given") -> "Decision":
        """A decision without randomness: log-probability and entropy are zero."""
        zero = repeated(0.0, regions.batch, regions.centre.dtype, regions.centre.device)
        return Decision(regions=regions, made=made, log_prob=zero, entropy=zero)
