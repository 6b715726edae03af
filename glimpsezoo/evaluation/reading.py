"""Reads the images of units in batches."""

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from glimpsezoo.data.base import Batch, ImageData, OnBadImage
from glimpsezoo.data.loading import batches
from glimpsezoo.evaluation import jobs


class Loading(NamedTuple):
    """How images are loaded, as `batches` takes it."""

    batch_size: int
    workers: int
    on_bad_image: OnBadImage


class Reader:
    """Reads units, through one loader as long as they are consecutive: its workers stay alive, and decode while a unit is computed.

    ahead: whether the units of a data set are expected to be asked for in order up to its end, by more than one call.
    """

    def __init__(self, ahead: bool = False) -> None:
        self.ahead = ahead
        self._data: ImageData | None = None
        self._how: Loading | None = None
        self._loader: Iterator[Batch] | None = None
        self._next = self._end = 0  # where the loader is, and where it ends
        self._shared = False  # whether other processes take some of these units: those ahead may be theirs

    def unit(self, data: ImageData, start: int, stop: int, how: Loading, until: int) -> Iterator[Batch]:
        """The batches of images start..stop-1. until: where the last unit ends that this call's owner will ask for."""
        same = self._data is data and self._how == how
        if not same or self._loader is None or self._next != start:
            self._shared = same and (self._shared or self._loader is not None)
            self.close()  # the workers end before others start
            self._data, self._how, self._end = data, how, len(data) if self.ahead and not self._shared else until
            self._loader = batches(data, start, self._end, how.batch_size, how.workers, on_bad_image=how.on_bad_image, align=jobs.UNIT)
        loader, self._loader = self._loader, None  # if the unit is abandoned midway, the next one begins anew
        yield from islice(loader, -(-(stop - start) // how.batch_size))
        if stop < self._end:
            self._loader, self._next = loader, stop

    def close(self) -> None:
        """End the workers."""
        self._loader = None
