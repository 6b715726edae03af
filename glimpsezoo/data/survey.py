"""What the stored images of a source are like: their sizes, their modes, and those that cannot be decoded."""

from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from statistics import median_low
from typing import NamedTuple

from glimpsezoo.data.base import BadImageError
from glimpsezoo.data.encoded import EncodedImage, EncodedImages
from glimpsezoo.data.images import NaturalImages, decode
from glimpsezoo.data.pixels import Decoding, opened
from glimpsezoo.errors import GlimpseZooError, counted

SAMPLE = 64  # images that the usual size of many is taken from
MOST = 3  # sizes that are named
THREADS, CHUNK = 4, 64  # images that are read before they are looked at


class _Seen(NamedTuple):
    size: tuple[int, int] | None
    mode: str
    bad: str


@dataclass
class Survey:
    """Stored images as their files say, before anything is converted or resized."""

    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    """(width, height) in pixels -> number of images."""
    modes: Counter[str] = field(default_factory=Counter)
    """Pillow's mode (RGB, L, RGBA, CMYK, ...) -> number of images."""
    bad: list[str] = field(default_factory=list)
    """One line per image that cannot be read, with its name and the reason."""

    def __add__(self, other: "Survey") -> "Survey":
        """Both together."""
        return Survey(self.sizes + other.sizes, self.modes + other.modes, [*self.bad, *other.bad])

    @property
    def sizes_in_words(self) -> dict[str, str]:
        """The range of widths and heights, and the sizes of most images."""
        if not self.sizes:
            return {}
        (least_width, most_width), (least_height, most_height) = ((min(sides), max(sides)) for sides in zip(*self.sizes, strict=True))
        common = ", ".join(f"{width} x {height} ({counted(count, 'image')})" for (width, height), count in self.sizes.most_common(MOST))
        return {
            "width": f"{least_width} to {most_width} px",
            "height": f"{least_height} to {most_height} px",
            "most frequent": common + (f", and {len(self.sizes) - MOST} others" if len(self.sizes) > MOST else ""),
        }

    @property
    def shorter_side(self) -> int | None:
        """The median of the images' shorter sides in pixels; None without a readable image."""
        sides = [min(size) for size, count in self.sizes.items() for _ in range(count)]
        return median_low(sides) if sides else None


def survey(images: EncodedImages, numbers: Iterable[int], decoding: Decoding | None = None) -> Survey:
    """Look at the images of these numbers. Without `decoding`, only the head of each file is parsed, so bad pixels go unnoticed."""
    found, rows = Survey(), images.at(numbers)
    with ThreadPoolExecutor(THREADS) as threads:
        while some := list(islice(rows, CHUNK)):
            for seen in threads.map(partial(_seen, decoding=decoding), some):
                if seen.bad:
                    found.bad.append(seen.bad)
                elif seen.size:
                    found.sizes[seen.size] += 1
                    found.modes[seen.mode] += 1
    return found


def usual_side(data: NaturalImages) -> int | None:
    """The usual shorter side of the images of a split in pixels, from a sample of evenly spaced images."""
    step = -(-len(data) // SAMPLE) or 1
    return survey(data.source.images, [int(number) for number in data.source.chosen[::step]]).shorter_side


def _seen(row: EncodedImage, decoding: Decoding | None) -> _Seen:
    try:
        if decoding is not None:
            decode(row, 3, decoding)
        with opened(row.image or b"") as image:
            return _Seen(image.size, image.mode, "")
    except BadImageError as bad:
        return _Seen(None, "", str(bad))
    except GlimpseZooError:  # of the environment, not of the image
        raise
    except Exception:  # Pillow's decoders raise anything; whether it can be decoded was not asked
        return _Seen(None, "", f"{row.where}: expected an image, got one that cannot be opened")
