"""What other machines are sent of a plan: images as they were, and one line for what cannot be sent."""

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from test_sharing import CONFIG, bench_of, finding, small_units
from toy_evaluation import IMAGES, INFO, MadeUp, job_of
from toy_models import TASK

from glimpsezoo.data.base import BadImageError, Example
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.evaluation.jobs import Job
from glimpsezoo.run.engines import shipping
from glimpsezoo.run.engines.shipping import Block, BlockMissing
from glimpsezoo.run.portions import Doer

__all__ = ["small_units"]


class Greys(MadeUp):
    """Every second image has 256 levels, and one cannot be read."""

    def __init__(self) -> None:
        super().__init__(bad=(4,))
        self.images[::2] = (self.images[::2] * 255).round() / 255

    def __getitem__(self, index: int) -> Example:
        return super().__getitem__(index)._replace(conversions=("made brighter",) if index == 7 else ())


def blocks_of(data: MadeUp) -> dict[tuple[int, int], Block]:
    return {(0, start): Block.of(data.examples(start, start + 10)) for start in range(0, IMAGES, 10)}


def same(one: Iterator[Example | BadImageError], two: Iterator[Example | BadImageError]) -> bool:
    def values(each: Example | BadImageError) -> Any:
        return str(each) if isinstance(each, BadImageError) else (each.image.tolist(), *each[1:])

    return [*map(values, one)] == [*map(values, two)]


def test_images_arrive_as_they_were_to_the_bit() -> None:
    data, blocks = Greys(), dict[tuple[int, int], Block]()
    content, left_out = shipping.packed_without_data((Job(job_of().model, "toy", data), data))
    assert left_out == [data]
    assert len(content) < 200_000
    job, again = shipping.unpacked(content, blocks)
    assert job.data is again
    assert (again.info, again.task, len(again)) == (INFO, TASK, IMAGES)
    with pytest.raises(BlockMissing) as missing:
        list(again.examples(10, 20))
    assert missing.value.key == (0, 10)
    blocks |= blocks_of(data)
    assert same(again.examples(0, IMAGES), data.examples(0, IMAGES))
    with pytest.raises(BadImageError, match="row 4"):
        again[4]
    assert blocks[0, 0].images.dtype == np.float32


def test_images_of_256_levels_are_sent_as_bytes() -> None:
    class Bytes(MadeUp):
        def __getitem__(self, index: int) -> Example:
            example = super().__getitem__(index)
            return example._replace(image=(example.image * 255).round() / 255)

    data = Bytes()
    block = Block.of(data.examples(0, 10))
    assert block.images.dtype == np.uint8
    assert same(iter(block.unpack()), data.examples(0, 10))


def test_what_cannot_be_pickled_is_said() -> None:
    job, lock = job_of(), threading.Lock()
    plan = [finding(lambda: lock)]
    with pytest.raises(GlimpseZooError, match=r"cannot be pickled \(.*lock.*\): use --engine threads"):
        shipping.packed(Doer(plan, bench_of(job), CONFIG))
