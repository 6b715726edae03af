"""Training images that are decoded once, and then held in memory as 8-bit pixels on the device that trains.

They are augmented there in batches, with the same outcome as if they were not held. Data that do not fit are decoded in every epoch.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from glimpsezoo.data.base import BadImageError, Batch, BulkImageData, Example, ImageData
from glimpsezoo.data.images import NaturalImages, Stored, planes

SHARE = 0.25  # of the free memory: the most that is held
SAMPLE = 64  # images from which the size of all is estimated
MEMINFO, CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


class InMemory(BulkImageData):
    """Natural images for training, each of which is held in memory once it is decoded. Examples are those of `data`.

    Use it in one process: another would decode and hold its own.
    """

    def __init__(self, data: NaturalImages, device: torch.device, expected: int) -> None:
        """expected: the bytes that all images will take."""
        self.data, self.info, self.task, self.device, self.expected = data, data.info, data.task, device, expected
        self._pixels: dict[int, Tensor] = {}  # place -> [C, h, w]
        self._labels: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self.data)

    def examples_at(self, places: Sequence[int]) -> Iterator[Example | BadImageError]:
        return self.data.examples_at(places)

    def training_batch(self, places: Sequence[int], epoch: int) -> Batch:
        missing = self.missing(places)
        self.hold(missing, self.data.stored(missing))
        return self.data.augmented(places, [self._pixels[place] for place in places], [self._labels[place] for place in places], epoch)

    def missing(self, places: Sequence[int]) -> list[int]:
        """Those of these places whose images are not held yet."""
        return [place for place in places if place not in self._pixels]

    def hold(self, places: Sequence[int], images: Sequence[Stored]) -> None:
        """Hold the images of these places."""
        for place, image in zip(places, images, strict=True):
            self._pixels[place] = torch.from_numpy(planes(image.pixels)).to(self.device)
            self._labels[place] = image.label

    def training_order(self, epoch: int, seed: int) -> Int[Tensor, "N"]:
        return self.data.training_order(epoch, seed)

    def labels(self) -> Int[Tensor, "N"]:
        return self.data.labels()


def in_memory(data: ImageData, device: torch.device, holders: int = 1) -> ImageData:
    """The same data, held in memory for training if they are natural images and fit into `SHARE` of the free memory.

    Digits that are placed on a canvas are in memory in any case. holders: how many processes share this memory and hold a copy each.
    """
    if not isinstance(data, NaturalImages):
        return data
    try:
        sample = data.stored(range(min(SAMPLE, len(data))))
    except BadImageError:  # training will name it when it comes to it
        return data
    expected = len(data) * sum(image.pixels.nbytes for image in sample) // len(sample)
    return InMemory(data, device, expected) if fits(holders * expected, device) else data


def fits(size: int, device: torch.device) -> bool:
    """Whether this many bytes fit into `SHARE` of the free memory of a device."""
    return size <= SHARE * free_memory(device)


def free_memory(device: torch.device) -> int:
    """Bytes of memory that a process may still use on the device: of the host, within the limit of its container. 0 if it is unknown."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if not MEMINFO.is_file():
        return 0
    available = next(line for line in MEMINFO.read_text().splitlines() if line.startswith("MemAvailable"))
    free = 1024 * int(available.split()[1])
    limit, used = CGROUP / "memory.max", CGROUP / "memory.current"
    if limit.is_file() and (most := limit.read_text().strip()) != "max":
        free = min(free, int(most) - int(used.read_text()))
    return free
