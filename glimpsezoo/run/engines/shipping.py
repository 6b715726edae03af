"""What another process needs to do portions of a plan, as bytes."""

import io
import pickle
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import cloudpickle
import numpy as np
import torch

from glimpsezoo.data.base import BadImageError, DataInfo, Example, ImageData, good
from glimpsezoo.errors import GlimpseZooError, one_line
from glimpsezoo.evaluation.jobs import UNIT
from glimpsezoo.run.portions import Outcome
from glimpsezoo.specs import Task

T = TypeVar("T")
LEVELS = 255


def packed(value: Any) -> bytes:
    """A plan with its models, data and conditions, or what came of a portion. Raises `GlimpseZooError` if it cannot be pickled."""
    try:
        return cloudpickle.dumps(value)
    except Exception as error:  # pickling raises anything
        raise _unsendable(error) from error


def packed_outcome(found: Outcome | Exception) -> bytes:
    """What came of a portion, or of trying it. An error that another process could not rebuild goes as one that says the same."""
    if isinstance(found, Exception):
        return packed(_rebuildable(found))
    units = {name: _rebuildable(unit) for name, unit in found.units.items()}
    return packed(replace(found, units=units, findings={place: _rebuildable(each) for place, each in found.findings.items()}))


def _rebuildable(error: T) -> T | Exception:
    """An error that another process can rebuild; anything else as it is."""
    if not isinstance(error, Exception):
        return error
    try:
        pickle.loads(cloudpickle.dumps(error))
    except Exception:  # of a class whose constructor takes other words than the error keeps, or of one that holds a lock, ...
        return RuntimeError(f"{type(error).__name__}: {one_line(error)}")
    return error


def settle(future: "Future[Outcome]", content: bytes) -> None:
    """Give a future what `packed_outcome` packed."""
    try:
        found = pickle.loads(content)
    except Exception as error:  # here, where a future calls this, nobody would hear of it, and who waits would wait for ever
        found = error
    if isinstance(found, Exception):
        future.set_exception(found)
    else:
        future.set_result(found)


def packed_without_data(value: Any) -> tuple[bytes, list[ImageData]]:
    """The same for a machine that does not have the data: the bytes, and what is left out of them. Raises `GlimpseZooError`."""
    content = io.BytesIO()
    packer = _Packer(content)
    try:
        packer.dump(value)
    except Exception as error:
        raise _unsendable(error) from error
    return content.getvalue(), packer.left_out


def unpacked(content: bytes, blocks: Mapping["BlockKey", "Block"]) -> Any:
    """The reverse of `packed_without_data`. blocks: the images that are at hand, which may be changed later on."""
    return _Unpacker(content, blocks).load()


def _unsendable(error: Exception) -> GlimpseZooError:
    return GlimpseZooError(
        f"expected models and data that can be sent to other processes, got some that cannot be pickled ({one_line(error):.200}): use "
        "--engine threads"
    )


class _Packer(cloudpickle.CloudPickler):
    """Leaves data out."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.left_out: list[ImageData] = []

    def persistent_id(self, value: Any) -> Any:
        if not isinstance(value, ImageData):
            return None
        number = number_of(value, self.left_out)
        if number == len(self.left_out):
            self.left_out.append(value)
        return number, value.info, value.task, len(value)


def number_of(data: ImageData, known: Sequence[ImageData]) -> int:
    """The place of data among others; the next one for data that are not among them."""
    return next((place for place, each in enumerate(known) if each is data), len(known))


class _Unpacker(pickle.Unpickler):
    def __init__(self, content: bytes, blocks: Mapping["BlockKey", "Block"]) -> None:
        super().__init__(io.BytesIO(content))
        self.blocks = blocks
        self.known: dict[int, Sent] = {}

    def persistent_load(self, pid: Any) -> Any:
        number, info, task, length = pid
        return self.known.setdefault(number, Sent(number, info, task, length, self.blocks))


@dataclass(frozen=True)
class Block:
    """Some consecutive examples, as plain arrays."""

    images: np.ndarray
    """[n, C, H, W]: bytes if all pixels are multiples of 1/255, else float32."""
    examples: tuple[tuple[int, int, int, tuple[str, ...]] | str, ...]
    """Label, id, group and conversions of each example, or the line about a bad one, which has no image."""

    @classmethod
    def of(cls, examples: Iterator[Example | BadImageError]) -> "Block":
        found, images = [], []
        for example in examples:
            if isinstance(example, Example):
                images.append(example.image)
                found.append(tuple(example[1:]))
            else:
                found.append(str(example))
        stacked = torch.stack(images) if images else torch.empty(0)
        levels = (stacked * LEVELS).round().to(torch.uint8)
        exact = torch.equal(levels.to(stacked) / LEVELS, stacked)
        return cls((levels if exact else stacked).numpy(), tuple(found))

    def unpack(self) -> list[Example | BadImageError]:
        images = iter(torch.from_numpy(np.array(self.images)))
        found: list[Example | BadImageError] = []
        for example in self.examples:
            if isinstance(example, str):
                found.append(BadImageError(example))
            else:
                image = next(images)
                found.append(Example(image.float() / LEVELS if image.dtype is torch.uint8 else image, *example))
        return found


BlockKey = tuple[int, int]
"""(number of the data, the first of the block's examples)."""


class BlockMissing(BaseException):
    """A block that is needed has not come. It is not an `Exception`, so nothing takes it for an error of a unit."""

    def __init__(self, key: BlockKey) -> None:
        super().__init__(key)
        self.key = key


class Sent(ImageData):
    """Data whose images came in blocks of a unit."""

    def __init__(self, number: int, info: DataInfo, task: Task, length: int, blocks: Mapping[BlockKey, Block]) -> None:
        self.number, self.info, self.task, self.length, self.blocks = number, info, task, length, blocks
        self._unpacked: tuple[int, list[Example | BadImageError]] = (-1, [])

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Example:
        return good(next(self.examples_at([index])))

    def examples_at(self, places: Sequence[int]) -> Iterator[Example | BadImageError]:
        for place in places:
            start = place // UNIT * UNIT
            if self._unpacked[0] != start:
                if (self.number, start) not in self.blocks:
                    raise BlockMissing((self.number, start))
                self._unpacked = start, self.blocks[self.number, start].unpack()
            yield self._unpacked[1][place - start]
