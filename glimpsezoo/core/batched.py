"""Values with one entry per image of a batch, which can be gathered: the base of states, decisions, regions and noise."""

import dataclasses
from functools import lru_cache
from typing import Any, Self

import torch
from jaxtyping import Int
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Batched:
    """A frozen dataclass whose tensors have the batch as their leading axis.

    Fields may be tensors [B, ...], other `Batched` values, tuples (also NamedTuples) of these, or values that all images share
    (numbers, text, None, tensors without axes). A subclass with a different layout overrides `select`.
    """

    def select(self, index: Int[Tensor, "n"]) -> Self:
        """The same value for the images `index` [n] of the batch, in that order; repeats are allowed."""
        return dataclasses.replace(self, **{f.name: gather(getattr(self, f.name), index) for f in dataclasses.fields(self)})


def gather(value: Any, index: Int[Tensor, "n"]) -> Any:
    """Rows `index` [n] of any value that a field of a `Batched` may have, or of a model's features.

    Raises `TypeError` for lists and dicts: they would pass as values that all images share.
    """
    if isinstance(value, Batched):
        return value.select(index)
    if isinstance(value, Tensor):
        return _rows(value, index) if value.ndim else value
    if isinstance(value, tuple):
        parts = [gather(part, index) for part in value]
        return tuple(parts) if type(value) is tuple else type(value)(*parts)
    if isinstance(value, list | dict):
        raise TypeError(f"expected a tensor, a Batched, a tuple of these, or a value that all images share, got a {type(value).__name__}")
    return value


def detached(value: Any) -> Any:
    """The same value, of any kind that `gather` takes, from which no gradient passes back."""
    if isinstance(value, Batched):
        return dataclasses.replace(value, **{f.name: detached(getattr(value, f.name)) for f in dataclasses.fields(value)})
    if isinstance(value, Tensor):
        return value.detach() if value.requires_grad else value
    if isinstance(value, tuple):
        parts = [detached(part) for part in value]
        return tuple(parts) if type(value) is tuple else type(value)(*parts)
    return value


@lru_cache(maxsize=4096)
def repeated(value: float, batch: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """`value` for each of `batch` images [batch], in memory once, so that `gather` need not copy it. It must not be written to."""
    with torch.inference_mode(False):  # a tensor made in inference mode could not be saved for a backward pass later
        return torch.full((1,), value, dtype=dtype, device=device).expand(batch)


def all_equal(value: Tensor) -> bool:
    """Whether the rows of a tensor are all equal. It looks into them only if they are in memory more than once."""
    return value.stride(0) == 0 or bool((value == value[:1]).all())


def _rows(value: Tensor, index: Int[Tensor, "n"]) -> Tensor:
    """`value[index]`, which `index_select` does twice as fast, but it would give up the order of channels-last images."""
    if value.stride(0) == 0:
        return value[:1].expand(len(index), *value.shape[1:])
    return value.index_select(0, index) if value.is_contiguous() else value[index]


def select_rows(image: Int[Tensor, "N"], batch: int, index: Int[Tensor, "n"]) -> tuple[Int[Tensor, "M"], Int[Tensor, "M"]]:
    """Gather a flat, ordered-by-image layout of N rows for images `index` [n] of `batch`.

    `image` [N] gives each row's image and does not decrease. Returns the positions [M] of the rows to take and, for each row, the
    place of its image in `index`. A state with one row per region, such as the pyramid's, is gathered with this.

    >>> position, image = select_rows(torch.tensor([0, 0, 1, 2]), 3, torch.tensor([2, 0]))
    >>> position.tolist(), image.tolist()
    ([3, 0, 1], [0, 1, 1])
    """
    counts = torch.bincount(image, minlength=batch)
    first = counts.cumsum(0) - counts
    taken = counts[index]
    new_image = torch.repeat_interleave(torch.arange(len(index), device=image.device), taken)
    new_first = taken.cumsum(0) - taken
    position = torch.arange(len(new_image), device=image.device) + (first[index] - new_first)[new_image]
    return position, new_image
