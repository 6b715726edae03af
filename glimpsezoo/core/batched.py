"""Values with one entry per image of a batch, which can be gathered and joined: the base of states, decisions, regions and noise."""

import dataclasses
import itertools
from collections.abc import Sequence
from functools import cache
from typing import Any, Self

import torch
from jaxtyping import Int
from torch import Tensor

from glimpsezoo.core.symbolic import tensor_cache
from glimpsezoo.errors import GlimpseZooError


@dataclasses.dataclass(frozen=True)
class Batched:
    """A frozen dataclass whose tensors have the batch as their leading axis.

    Fields may be tensors [B, ...], other `Batched` values, tuples (also NamedTuples) of these, or values that all images share
    (numbers, text, None, tensors without axes). A subclass with a different layout overrides `select` and `join`.
    """

    def select(self, index: Int[Tensor, "n"]) -> Self:
        """The same value for the images `index` [n] of the batch, in that order; repeats are allowed."""
        return type(self)(**{name: gather(getattr(self, name), index) for name in _names(type(self))})

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """One batch of the images of all `parts`, one or more, in their order.

        Raises `GlimpseZooError` if they differ in a value that all images of a batch share, and for a layout without its own `join`.
        """
        if cls.select is not Batched.select and cls.join.__func__ is Batched.join.__func__:
            raise GlimpseZooError(f"batches of {cls.__name__} cannot be joined: it has its own `select`, so give it its own `join` as well")
        return cls(**{name: join([getattr(part, name) for part in parts]) for name in _names(cls)})

    def detached(self) -> Self:
        """The same value, through which no gradient passes."""
        return type(self)(**{name: _detached(getattr(self, name)) for name in _names(type(self))})


@cache
def _names(kind: type[Batched]) -> tuple[str, ...]:
    """The fields of a dataclass, kept because every step asks for them."""
    return tuple(field.name for field in dataclasses.fields(kind))


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


def join(values: Sequence[Any]) -> Any:
    """The rows of all `values`, one or more of what `gather` takes. Raises `GlimpseZooError` if they differ in what all images share."""
    first = values[0]
    if isinstance(first, Batched):
        return type(first).join(values)
    if isinstance(first, tuple):
        parts = [join(part) for part in zip(*values, strict=True)]
        return tuple(parts) if type(first) is tuple else type(first)(*parts)
    if isinstance(first, Tensor) and first.ndim:
        if all(value.stride(0) == 0 and value.data_ptr() == first.data_ptr() for value in values):  # in memory once
            return first[:1].expand(sum(map(len, values)), *first.shape[1:])
        return torch.cat(list(values))
    for value in values[1:]:
        if not (value.equal(first) if isinstance(first, Tensor) else value == first):
            raise GlimpseZooError(f"expected batches that share {first!r}, got one with {value!r}: join those of one step and one model")
    return first


def _detached(value: Any) -> Any:
    if isinstance(value, Batched):
        return value.detached()
    if isinstance(value, Tensor):
        return value.detach() if value.requires_grad else value  # `Regions.single` knows some tensors by their identity
    if isinstance(value, tuple):
        parts = [_detached(part) for part in value]
        return tuple(parts) if type(value) is tuple else type(value)(*parts)
    return value


@tensor_cache(4096)
def repeated(value: float, batch: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """`value` for each of `batch` images [batch], in memory once, so that `gather` need not copy it. It must not be written to."""
    return _in_memory_once(value, dtype, device).expand(batch)


@tensor_cache(1024)
def _in_memory_once(value: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.full((1,), value, dtype=dtype, device=device)


def all_equal(value: Tensor) -> bool:
    """Whether the rows of a tensor are all equal. It looks into them only if they are in memory more than once."""
    return value.stride(0) == 0 or len(value) == 1 or bool((value == value[:1]).all())


def _rows(value: Tensor, index: Int[Tensor, "n"]) -> Tensor:
    """`value[index]`, which `index_select` does twice as fast, but it would give up the order of channels-last images."""
    if value.stride(0) == 0:
        return value[:1].expand(len(index), *value.shape[1:])
    return value.index_select(0, index) if value.is_contiguous() else value[index]


def rows_of_each(image: Int[Tensor, "N"], batch: int) -> Int[Tensor, "B"]:
    """How many rows of a flat layout each of `batch` images has. image: that of each row.

    >>> rows_of_each(torch.tensor([0, 0, 2]), 3).tolist()
    [2, 0, 1]
    """
    return image.new_zeros(batch).index_add(0, image, torch.ones_like(image))


def select_rows(image: Int[Tensor, "N"], batch: int, index: Int[Tensor, "n"]) -> tuple[Int[Tensor, "M"], Int[Tensor, "M"]]:
    """Gather a flat, ordered-by-image layout of N rows for images `index` [n] of `batch`.

    `image` [N] gives each row's image and does not decrease. Returns the positions [M] of the rows to take and, for each row, the
    place of its image in `index`. A state with one row per region, such as the pyramid's, is gathered with this.

    >>> position, image = select_rows(torch.tensor([0, 0, 1, 2]), 3, torch.tensor([2, 0]))
    >>> position.tolist(), image.tolist()
    ([3, 0, 1], [0, 1, 1])
    """
    counts = rows_of_each(image, batch)
    first = counts.cumsum(0) - counts
    taken = counts[index]
    new_image = torch.repeat_interleave(torch.arange(len(index), device=image.device), taken)
    new_first = taken.cumsum(0) - taken
    position = torch.arange(len(new_image), device=image.device) + (first[index] - new_first)[new_image]
    return position, new_image


def join_rows(parts: Sequence[tuple[Tensor, int]]) -> Int[Tensor, "M"]:
    """The images [M] of all rows of flat layouts that become one batch. parts: the images [N] of the rows of each, and its batch.

    >>> join_rows([(torch.tensor([0, 0, 1]), 2), (torch.tensor([1]), 2)]).tolist()
    [0, 0, 1, 3]
    """
    before = itertools.accumulate((batch for _, batch in parts), initial=0)
    return torch.cat([image + first for (image, _), first in zip(parts, before, strict=False)])
