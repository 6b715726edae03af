"""The image of a trace: its regions, a path from look to look, and the number of each region beside it."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from glimpsezoo.reports.pictures.scene import Bitmap, Box, Dot, Path, Shape, Words, series
from glimpsezoo.reports.pictures.traced import Glimpse, Traced, TracedLook

LONGER = 208.0  # px: the image's longer side
MOST = 24  # glimpses drawn per step; a number stands for the rest
MARGIN = 28.0  # px beside the image, for the numbers of regions that reach its edge
ABOVE = 17.0  # px above and below the image, for the same
CHIP = 15.0  # px: height of a number
APART = 2.0  # px between a region and its number
ELSEWHERE = 0.003  # share of a region: how much less a number must hide to leave its usual place, left of the top left corner


@dataclass(frozen=True)
class _Region:
    """A glimpse within the image, in px from the image's top left corner."""

    glimpse: Glimpse
    look: TracedLook
    left: float
    top: float
    right: float
    bottom: float

    @property
    def centre(self) -> tuple[float, float]:
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    @property
    def area(self) -> float:
        return (self.right - self.left) * (self.bottom - self.top)


def size_of(traced: Traced) -> tuple[float, float]:
    """Width and height of the image in px."""
    height, width = traced.pixels.shape[:2]
    zoom = LONGER / max(height, width)
    return width * zoom, height * zoom


def image_with_regions(traced: Traced) -> Iterator[Shape]:
    """The shapes, with the image's top left corner at (0, 0). A halo keeps lines visible on any image."""
    width, height = size_of(traced)
    looks = [[_region(glimpse, look, width, height) for glimpse in look.glimpses[:MOST]] for look in traced.looks]
    every = list(itertools.chain(*looks))
    yield Bitmap(x=0, y=0, width=width, height=height, pixels=traced.pixels, tip=f"{traced.image}, {traced.condition}")
    for region in every:
        yield from _edges(region)
    yield from _path(looks)
    yield from _numbers(every, width, height)


def chip(number: int, step: int, x: float, y: float) -> tuple[Box, Words]:
    """A glimpse's number on the colour of its step, with its top left corner at (x, y)."""
    text = str(number)
    return (
        Box(x=x, y=y, width=8 + 6 * len(text), height=CHIP, fill=series(step - 1), step=step),
        Words(x=x + 4 + 3 * len(text), y=y + 11.5, text=text, size=11, fill="on", anchor="middle", bold=True, step=step),
    )


def _region(glimpse: Glimpse, look: TracedLook, width: float, height: float) -> _Region:
    left, top = max(0.0, glimpse.left) * width, max(0.0, glimpse.top) * height
    right, bottom = min(1.0, glimpse.left + glimpse.width) * width, min(1.0, glimpse.top + glimpse.height) * height
    return _Region(glimpse, look, min(left, width), min(top, height), max(right, 0.0), max(bottom, 0.0))


def _edges(region: _Region) -> Iterator[Shape]:
    step = region.look.step
    wide, high = max(2.0, region.right - region.left - 2), max(2.0, region.bottom - region.top - 2)
    halo = Box(x=region.left + 1, y=region.top + 1, width=wide, height=high, stroke="paper", line=3.5, step=step)
    yield halo
    yield replace(halo, stroke=series(step - 1), line=1.8, tip=f"glimpse {region.glimpse.number}, step {step}")


def _path(looks: Sequence[Sequence[_Region]]) -> Iterator[Shape]:
    """Thin lines to the centre of each region from that of its parent; without a parent, from the middle of the look before."""
    centres = {region.glimpse.number: region.centre for region in itertools.chain(*looks)}
    for region in looks[0] if len(looks) > 1 else ():
        yield from _end(region)
    for before, regions in itertools.pairwise(looks):
        if not before:
            continue
        middle = tuple(sum(places) / len(before) for places in zip(*(region.centre for region in before), strict=True))
        for region in regions:
            (x, y), (right, down) = centres.get(region.glimpse.parent, middle), region.centre
            step, colour = region.look.step, series(region.look.step - 1)
            if (x, y) == (right, down):
                continue
            line = Path(x=x, y=y, points=((0.0, 0.0), (right - x, down - y)), stroke="paper", line=2.6, step=step)
            yield from (line, replace(line, stroke=colour, line=1.1))
            yield from _end(region)


def _end(region: _Region) -> Iterator[Dot]:
    """A dot in the middle of a region."""
    (x, y), step = region.centre, region.look.step
    yield from (Dot(x=x, y=y, radius=radius, fill=role, step=step) for radius, role in ((3.2, "paper"), (2.2, series(step - 1))))


class _Place(NamedTuple):
    """Where a number may stand."""

    x: float
    y: float
    width: float

    def shared(self, left: float, top: float, right: float, bottom: float) -> float:
        """The area that it shares with a rectangle."""
        across = min(self.x + self.width, right) - max(self.x, left)
        down = min(self.y + CHIP, bottom) - max(self.y, top)
        return max(0.0, across) * max(0.0, down)


def _numbers(regions: Sequence[_Region], width: float, height: float) -> Iterator[Shape]:
    """Each number touches its region from outside, where it hides the smallest share of other regions and no other number."""
    taken: list[_Place] = []
    for region in regions:
        wide = chip(region.glimpse.number, region.look.step, 0, 0)[0].width
        places = _around(region, wide, width, height)
        hidden = [_hidden(place, regions, taken) + ELSEWHERE * (rank > 0) for rank, place in enumerate(places)]
        best = places[hidden.index(min(hidden))]
        taken.append(best)
        yield from chip(region.glimpse.number, region.look.step, best.x, best.y)


def _hidden(place: _Place, regions: Sequence[_Region], taken: Sequence[_Place]) -> float:
    """The share of each region that a number at `place` would hide, summed; other numbers weigh more than any region."""
    found = sum(place.shared(each.left, each.top, each.right, each.bottom) / max(1.0, each.area) for each in regions)
    return found + 10 * sum(place.shared(each.x, each.y, each.x + each.width, each.y + CHIP) for each in taken)


def _around(region: _Region, wide: float, width: float, height: float) -> list[_Place]:
    """Places along the four sides of a region, first those at a corner; none leaves the margins. If all do, the nearest that does not."""
    across = [region.left, region.right - wide, *_between(region.left, region.right, wide)]
    down = [region.top, region.bottom - CHIP, *_between(region.top, region.bottom, CHIP)]
    found = [_Place(x, y, wide) for y in down for x in (region.left - wide - APART, region.right + APART)]
    found += [_Place(x, y, wide) for x in across for y in (region.top - CHIP - APART, region.bottom + APART)]
    room = [each for each in found if -MARGIN <= each.x <= width + MARGIN - wide and -ABOVE <= each.y <= height + ABOVE - CHIP]
    inside = _Place(min(max(region.left, -MARGIN), width - wide), min(max(region.top - CHIP, -ABOVE), height - CHIP), wide)
    return room or [inside]


def _between(start: float, end: float, length: float) -> list[float]:
    """Positions of things of a length side by side within an interval."""
    return [start + k * length for k in range(1, int((end - start) / length))]
