"""Plots: lines with intervals, on linear or logarithmic axes."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from glimpsezoo.measures.shown import Axis, Line
from glimpsezoo.reports.pictures.scene import Box, Dot, Path, Scene, Shape, Words, series

WIDTH, HEIGHT = 420.0, 290.0
LEFT, RIGHT, TOP, BOTTOM = 48.0, 14.0, 12.0, 46.0
TICKS = 5  # approximate number per axis
MARK = 11  # px: height of a line's mark
TOP_MARK, LOW_MARK = 24, 240  # px: where marks may stand
COVERED = 16  # px: how much farther off a mark may stand for not lying on a dot
SWATCH, LETTER = 30.0, 7.0  # px: width of a legend's mark, and the average width of a letter


@dataclass(frozen=True)
class _Scale:
    """Maps values to positions along an axis."""

    axis: Axis
    low: float
    """Value at `start`."""
    high: float
    """Value at the other end."""
    start: float
    """Where the axis begins, in px."""
    length: float
    """In px; negative if values grow upwards."""

    def __call__(self, value: float) -> float:
        low, high, value = (math.log10(each) if self.axis.logarithmic else each for each in (self.low, self.high, value))
        return self.start + self.length * (value - low) / (high - low)

    def ticks(self) -> list[float]:
        if not self.axis.logarithmic:
            step = _step((self.high - self.low) / TICKS)
            return [k * step for k in range(math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9) + 1)]
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        few = (1,) if len(decades) > 4 else (1, 2, 5)
        return [digit * 10.0**decade for decade in decades for digit in few if self.low <= digit * 10.0**decade <= self.high]


def _step(rough: float) -> float:
    """The distance of ticks: close to `rough`, and 1, 2, 5 or 10 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(digit * power for digit in (1, 2, 5, 10) if digit * power >= 0.75 * rough)


def plot(title: str, lines: Sequence[Line], x: Axis, y: Axis) -> Scene:
    """The plot, with a description in words. Points that a logarithmic axis cannot show are left out."""
    lines = [replace(line, points=tuple(point for point in line.points if not x.logarithmic or point.x > 0)) for line in lines]
    points = [point for line in lines for point in line.points]
    across = _scale(x, [point.x for point in points], LEFT, WIDTH - LEFT - RIGHT)
    heights = [value for point in points for value in (point.low, point.y, point.high) if value is not None]
    up = _scale(y, heights, HEIGHT - BOTTOM, TOP + BOTTOM - HEIGHT)
    shapes = [*_axes(across, up), *(shape for line in lines for shape in _drawn(line, across, up))]
    shapes += _marks(lines, across, up)
    return Scene(WIDTH, HEIGHT, title, _in_words(lines, x, y), tuple(shapes))


def _scale(axis: Axis, values: Sequence[float], start: float, length: float) -> _Scale:
    """The scale that holds all values and the axis's own limits, with a margin where the axis has no limit."""
    seen = [*values, *(end for end in (axis.low, axis.high) if end is not None)]
    low, high = (min(seen), max(seen)) if seen else (0.0, 1.0)
    if axis.logarithmic:
        low, high = (low, high) if high > low > 0 else (low or 1.0, (low or 1.0) * 10)
        return _Scale(axis, low / (high / low) ** 0.05, high * (high / low) ** 0.05, start, length)
    margin = 0.05 * (high - low) or 0.5
    return _Scale(axis, low if axis.low == low else low - margin, high if axis.high == high else high + margin, start, length)


def _axes(across: _Scale, up: _Scale) -> Iterator[Shape]:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    for tick in up.ticks():
        yield Path(x=LEFT, y=up(tick), points=((0, 0), (right - LEFT, 0)), stroke="rule", line=1)
        yield Words(x=LEFT - 6, y=up(tick) + 4, text=up.axis.text(tick), anchor="end", fill="muted")
    free = -math.inf  # where the label of the previous tick ends
    for tick in across.ticks():
        text = across.axis.text(tick)
        yield Path(x=across(tick), y=bottom, points=((0, 0), (0, 4)), stroke="muted", line=1)
        if across(tick) - 4 * len(text) > free:
            yield Words(x=across(tick), y=bottom + 17, text=text, anchor="middle", fill="muted")
            free = across(tick) + 4 * len(text) + 4
    yield Path(x=LEFT, y=bottom, points=((0, 0), (right - LEFT, 0)), stroke="muted", line=1)
    yield Words(x=(LEFT + right) / 2, y=HEIGHT - 8, text=across.axis.label, anchor="middle")
    yield Words(x=LEFT + 4, y=TOP + 4, text=up.axis.label)


def _drawn(line: Line, across: _Scale, up: _Scale) -> Iterator[Shape]:
    if len(line.points) > 1:
        x, y = across(line.points[0].x), up(line.points[0].y)
        points = tuple((across(point.x) - x, up(point.y) - y) for point in line.points)
        yield Path(x=x, y=y, points=points, stroke=series(line.series), line=2, dashed=line.dashed, tip=line.name)
    for point in line.points if line.dots else ():
        x, tip = across(point.x), point.tip or f"{line.name}: {point.y:.4g} at {point.x:.4g}"
        if point.low is not None and point.high is not None:
            bottom, top = up(point.low), up(point.high)
            yield Path(x=x, y=bottom, points=((0, 0), (0, top - bottom)), stroke=series(line.series), line=1.2, tip=tip)
            for end in (bottom, top):
                yield Path(x=x - 3, y=end, points=((0, 0), (6, 0)), stroke=series(line.series), line=1.2)
        yield Dot(x=x, y=up(point.y), radius=3.5 if not line.dashed else 2.5, fill=series(line.series), tip=tip)


def _marks(lines: Sequence[Line], across: _Scale, up: _Scale) -> Iterator[Words]:
    """The mark of each line beside its last point, at the nearest height where it touches no other, and not on a dot if it need not."""
    taken: list[tuple[float, float, float]] = []  # x, y and width
    dots = [(across(point.x), up(point.y)) for line in lines if line.dots for point in line.points]
    for line in (line for line in lines if line.mark and line.points):
        x, y, wide = across(line.points[-1].x), up(line.points[-1].y) + 4, 7.0 * len(line.mark)
        sides = [side for side in (x + 6, x - 6 - wide) if side + wide < WIDTH]
        heights = sorted(range(TOP_MARK, LOW_MARK, MARK), key=lambda height: abs(height - y))
        free = [
            (side, float(height))
            for height in heights
            for side in sides
            if all(abs(height - b) >= MARK or side >= a + w or a >= side + wide for a, b, w in taken)
        ]
        off = {place: abs(place[1] - y) + COVERED * _covered(*place, wide, dots) for place in free}
        left, down = min(free, key=lambda place: off[place], default=(sides[0], y))
        taken.append((left, down, wide))
        yield Words(x=left, y=down, text=line.mark, size=11, fill=series(line.series), bold=True)


def _covered(left: float, down: float, wide: float, dots: Sequence[tuple[float, float]]) -> int:
    """How many dots a mark would lie on."""
    return sum(left - 4 < x < left + wide + 4 and down - MARK - 2 < y < down + 4 for x, y in dots)


def _in_words(lines: Sequence[Line], x: Axis, y: Axis) -> str:
    """The first and last point of every line, for screen readers; the tables have all numbers."""
    said = []
    for line in lines:
        if line.points:
            first, last = line.points[0], line.points[-1]
            end = f" to {y.text(last.y)} at {x.text(last.x)}" if len(line.points) > 1 else ""
            said.append(f"{line.name}: {y.text(first.y)} at {x.text(first.x)}{end}")
    return f"{y.label} against {x.label}. {'; '.join(said)}."


def with_legend(drawing: Scene, lines: Sequence[Line]) -> Scene:
    """The plot with a legend below it, for use outside a page: two entries per row if all names are short enough, else one."""
    half = (drawing.width - LEFT) / 2
    columns = 2 if all(SWATCH + LETTER * len(line.name) < half for line in lines) else 1
    shapes = list(drawing.shapes)
    for k, line in enumerate(lines):
        x, y = LEFT + k % columns * half, drawing.height + 10 + 18 * (k // columns)
        shapes.append(Path(x=x, y=y, points=((0, 0), (24, 0)), stroke=series(line.series), line=2.5, dashed=line.dashed))
        shapes.append(Words(x=x + SWATCH, y=y + 4, text=line.name))
    return replace(drawing, height=drawing.height + 10 + 18 * math.ceil(len(lines) / columns), shapes=tuple(shapes))


def swatch(line: Line) -> Scene:
    """The mark of a line in a legend."""
    shapes: tuple[Shape, ...] = (Path(x=0, y=5, points=((0, 0), (24, 0)), stroke=series(line.series), line=2.5, dashed=line.dashed),)
    return Scene(24, 10, line.name, "", shapes + ((Box(x=9, y=2, width=6, height=6, fill=series(line.series)),) if line.dots else ()))
