"""A trace as a drawing: the image with its regions, the predictions, and the glimpses as a tree from left to right."""

import itertools
from collections.abc import Iterator, Sequence

from glimpsezoo.errors import counted
from glimpsezoo.measures.text import macs_text
from glimpsezoo.reports.pictures.regions import ABOVE, CHIP, MARGIN, MOST, chip, image_with_regions, size_of
from glimpsezoo.reports.pictures.scene import Bitmap, Box, Path, Scene, Shape, Words, beside, fitting, framed, series, stacked
from glimpsezoo.reports.pictures.traced import Glimpse, Traced, TracedLook

COLUMN = 160.0  # px: width of the predictions beside it
HEAD = 40.0 + ABOVE  # px: height of the lines above it
ROW = 52.0  # px: height of one prediction
SIZES = ((4, 72.0), (9, 48.0))  # (rows, px): the size of glimpses in a tree of up to so many rows
SMALLEST = 28.0  # px: the size of glimpses in larger trees
GAP = 30.0  # px between a node and its children


def sheet(rows: Sequence[Sequence[Traced]]) -> Scene:
    """All images below each other, the conditions of each side by side."""
    return framed(stacked([beside([panel(traced) for traced in row]) for row in rows], 32))


def panel(traced: Traced) -> Scene:
    """One image under one condition."""
    width, height = size_of(traced)
    column = MARGIN + width + MARGIN + 4
    foot = HEAD + max(height + ABOVE, ROW * len(traced.looks) + 30)
    tree = _tree(traced, foot + 28)
    image = [shape.moved(MARGIN, HEAD) for shape in image_with_regions(traced)]
    shapes = [*_heading(traced, column + COLUMN), *image, *_predictions(traced, column), *tree]
    right = max([column + COLUMN, *(_right(shape) for shape in tree)])
    down = max([foot, *(_bottom(shape) for shape in tree)])
    title = f"{traced.model} looks at {traced.image} ({traced.condition})"
    return Scene(right + 2, down + 2, title, in_words(traced), tuple(shapes))


def in_words(traced: Traced) -> str:
    """The trace in one or two sentences, for screen readers."""
    said = []
    for look in traced.looks:
        mark = "" if look.right is None else " (right)" if look.right else " (wrong)"
        count = len(look.glimpses)
        said.append(f"step {look.step}: {counted(count, 'region')}, {look.prediction} {look.confidence:.1%}{mark}")
    label = f"label {traced.label}; " if traced.label is not None else ""
    macs = macs_text(traced.macs, at_least=traced.at_least)
    return f"{traced.image}, {traced.condition}: {label}{'; '.join(said)}; {traced.exit}, {macs} MACs."


def _heading(traced: Traced, width: float) -> Iterator[Shape]:
    label = f", label {traced.label}" if traced.label is not None else ""
    yield Words(x=0, y=14, text=fitting(f"{traced.model}: {traced.condition}", width, 15), size=15, bold=True)
    yield Words(x=0, y=34, text=fitting(f"{traced.image}{label}", width, 12), fill="muted")


def _predictions(traced: Traced, x: float) -> Iterator[Shape]:
    """The prediction after each step: green and 'right' or red and 'wrong' if the label is known."""
    for row, look in enumerate(traced.looks):
        y = HEAD + ROW * row
        colour = "ink" if look.right is None else "good" if look.right else "bad"
        mark = "" if look.right is None else " right" if look.right else " wrong"
        tip = f"after step {look.step}: {look.prediction} {look.confidence:.2%}{mark}"
        yield Words(x=x, y=y + 12, text=f"step {look.step}", fill=series(look.step - 1), bold=True, step=look.step)
        yield Words(x=x, y=y + 29, text=fitting(look.prediction, COLUMN, 12), fill=colour, bold=True, step=look.step, tip=tip)
        yield Words(x=x + COLUMN, y=y + 12, text=f"{look.confidence:.1%}{mark}", fill=colour, anchor="end", step=look.step)
        yield Box(x=x, y=y + 35, width=COLUMN, height=6, fill="rule", step=look.step)
        yield Box(x=x, y=y + 35, width=COLUMN * look.confidence, height=6, fill=colour, step=look.step, tip=tip)
    y, last = HEAD + ROW * len(traced.looks), traced.looks[-1].step
    yield Words(x=x, y=y + 12, text=fitting(traced.exit, COLUMN, 12), size=12, step=last)
    yield Words(x=x, y=y + 28, text=f"{macs_text(traced.macs, at_least=traced.at_least)} MACs", fill="muted", step=last)


def _tree(traced: Traced, top: float) -> list[Shape]:
    """One column of glimpses per step, each joined to its parent if it has one: the parse tree."""
    shapes: list[Shape] = []
    ends: dict[int, tuple[float, float]] = {}  # where the lines from a node to its children start
    rows = _rows(traced)
    size = next((size for count, size in SIZES if max(rows.values()) < count), SMALLEST)
    x = 0.0
    for look in traced.looks:
        colour = series(look.step - 1)
        shapes.append(Words(x=x, y=top - 12, text=f"seen in step {look.step}", size=11, fill=colour, bold=True, step=look.step))
        width = 78.0
        for glimpse in look.glimpses[:MOST]:
            y = top + rows[glimpse.number] * (size + 8)
            shapes += _line(ends.get(glimpse.parent), (x - 2, y + size / 2), look)
            views = list(_views(glimpse, look, x + MARGIN, y, size))
            right = max(_right(view) for view in views)
            ends[glimpse.number], width = (right + 2, y + size / 2), max(width, right - x)
            shapes += [*views, *chip(glimpse.number, look.step, x, y + (size - CHIP) / 2)]
        if len(look.glimpses) > MOST:
            y = top + (max(rows.values()) + 1) * (size + 8) + 12
            shapes.append(Words(x=x, y=y, text=f"and {len(look.glimpses) - MOST} more", fill="muted", step=look.step))
        x += width + GAP
    return shapes


def _rows(traced: Traced) -> dict[int, float]:
    """The row of each drawn glimpse. Leaves take the next free row; parents are centred on their children.

    Without parents, every step starts at the top.
    """
    shown = [glimpse for look in traced.looks for glimpse in look.glimpses[:MOST]]
    numbers = {glimpse.number for glimpse in shown}
    children: dict[int, list[int]] = {}
    for glimpse in shown:
        children.setdefault(glimpse.parent if glimpse.parent in numbers else 0, []).append(glimpse.number)
    if children.keys() == {0}:
        return {glimpse.number: float(row) for look in traced.looks for row, glimpse in enumerate(look.glimpses[:MOST])}
    rows: dict[int, float] = {}
    free = itertools.count()

    def place(number: int) -> float:
        below = [place(child) for child in children.get(number, ())]
        rows[number] = (below[0] + below[-1]) / 2 if below else float(next(free))
        return rows[number]

    for root in children[0]:
        place(root)
    return rows


def _views(glimpse: Glimpse, look: TracedLook, x: float, y: float, size: float) -> Iterator[Shape]:
    """What the model saw, drawn at one size whatever the resolution; several scales are side by side."""
    for view in glimpse.views:
        height, width = view.shape[:2]
        shown = size * width / max(height, width)
        tip = f"glimpse {glimpse.number}: {width} x {height} px as the model saw it"
        yield Bitmap(x=x, y=y, width=shown, height=size * height / max(height, width), pixels=view, step=look.step, tip=tip)
        yield Box(x=x, y=y, width=shown, height=size * height / max(height, width), stroke=series(look.step - 1), step=look.step)
        x += shown + 4


def _line(start: tuple[float, float] | None, end: tuple[float, float], look: TracedLook) -> list[Shape]:
    if start is None:
        return []
    return [Path(x=start[0], y=start[1], points=((0.0, 0.0), (end[0] - start[0], end[1] - start[1])), stroke="muted", step=look.step)]


def _right(shape: Shape) -> float:
    return shape.x + (shape.width if isinstance(shape, Box | Bitmap) else 0)


def _bottom(shape: Shape) -> float:
    return shape.y + (shape.height if isinstance(shape, Box | Bitmap) else 4)
