"""How many images are worked on at a time, so that they fit into memory."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Self, TypeVar

import torch

from glimpsezoo.errors import out_of_memory
from glimpsezoo.specs import Task

MAX_BATCH = 256
BatchSize = int | Literal["auto"]
"""'auto' depends on the size of the images, and is halved whenever the device runs out of memory. A number is kept."""
T = TypeVar("T")


def auto_batch_size(task: Task, device: torch.device) -> int:
    """A power of two: as many images as fit into 4 M values (64 M on an accelerator), at most 256 and at least 1."""
    values = task.channels * task.image_size[0] * task.image_size[1]
    most = (1 << (22 if device.type == "cpu" else 26)) // values
    return 1 << max(0, min(most, MAX_BATCH).bit_length() - 1)


@dataclass
class Parts:
    """Work on images, `size` of them at a time."""

    size: int
    fixed: bool = False
    """Whether the user set the size."""

    @classmethod
    def of(cls, batch_size: BatchSize, task: Task, device: torch.device) -> Self:
        return cls(auto_batch_size(task, device)) if batch_size == "auto" else cls(batch_size, fixed=True)

    def halve(self, error: Exception) -> None:
        """Take half as many at a time from now on. Raises `error` if it does not say that memory ran out, or if the size cannot change."""
        if not out_of_memory(error) or self.fixed or self.size == 1:
            raise error
        self.size //= 2

    def over(self, count: int, do: Callable[[slice], T]) -> Iterator[T]:
        """What `do` makes of images 0..count-1, a slice of them at a time. Where memory runs out, the slice is done again in halves."""
        start = 0
        while start < count:
            part = slice(start, min(start + self.size, count))
            try:
                found = do(part)
            except (MemoryError, RuntimeError) as error:
                self.halve(error)
                continue
            yield found
            start = part.stop
