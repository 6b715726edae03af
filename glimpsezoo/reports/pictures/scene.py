"""Drawings as lists of shapes, in CSS pixels from the top left corner. Both writers, svg and raster, draw them.

Colours are given as roles, so that a drawing is readable in light and in dark mode.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self

from jaxtyping import UInt8
from numpy import ndarray

SERIES = 8


def _numbered(*colours: str) -> dict[str, str]:
    return {f"s{k}": colour for k, colour in enumerate(colours)}


LIGHT = {
    "paper": "#ffffff",
    "ink": "#1f2328",
    "muted": "#59636e",
    "rule": "#d1d9e0",
    "good": "#116329",
    "bad": "#b3151f",
    "on": "#ffffff",
    **_numbered("#0969da", "#bc4c00", "#8250df", "#0f766e", "#bf3989", "#7a5c00", "#57606a", "#1f3a8a"),
}
DARK = {
    "paper": "#0d1117",
    "ink": "#e6edf3",
    "muted": "#9da7b1",
    "rule": "#3d444d",
    "good": "#56d364",
    "bad": "#ff8a80",
    "on": "#0d1117",
    **_numbered("#58a6ff", "#f0883e", "#bc8cff", "#2dd4bf", "#f778ba", "#d4a72c", "#b1bac4", "#93a8ff"),
}


def series(index: int) -> str:
    """The colour role of series number `index`; colours repeat after eight."""
    return f"s{index % SERIES}"


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A shape of a drawing."""

    x: float
    """Distance from the left edge."""
    y: float
    """Distance from the top edge."""
    step: int = 0
    """The step that it belongs to; 0 for none."""
    tip: str = ""
    """Tooltip."""

    def moved(self, right: float, down: float) -> Self:
        return replace(self, x=self.x + right, y=self.y + down)


@dataclass(frozen=True, kw_only=True)
class Box(Shape):
    """A rectangle; its position is the top left corner."""

    width: float
    height: float
    fill: str = ""
    """Colour role; '' for none."""
    stroke: str = ""
    """Colour role; '' for none."""
    line: float = 1.0
    """Width of the stroke."""


@dataclass(frozen=True, kw_only=True)
class Path(Shape):
    """Straight lines through points."""

    points: tuple[tuple[float, float], ...]
    """(x, y) relative to the shape's position."""
    stroke: str = "ink"
    """Colour role."""
    line: float = 1.5
    """Width of the stroke."""
    dashed: bool = False


@dataclass(frozen=True, kw_only=True)
class Dot(Shape):
    """A disc; its position is the centre."""

    radius: float
    fill: str = "ink"
    """Colour role."""


@dataclass(frozen=True, kw_only=True)
class Words(Shape):
    """One line of text; its position is on the baseline."""

    text: str
    size: float = 12.0
    """In px."""
    fill: str = "ink"
    """Colour role."""
    anchor: str = "start"
    """Which part of the baseline the position is: 'start', 'middle' or 'end'."""
    bold: bool = False


@dataclass(frozen=True, kw_only=True)
class Bitmap(Shape):
    """An image of 8-bit pixels, enlarged to width x height without smoothing."""

    width: float
    height: float
    pixels: UInt8[ndarray, "h w 3"]
    """RGB."""


@dataclass(frozen=True)
class Scene:
    """A drawing of width x height."""

    width: float
    height: float
    title: str
    """For screen readers, like `description`."""
    description: str
    """What it shows, in words."""
    shapes: tuple[Shape, ...]
    """In the order of drawing."""

    def moved(self, right: float, down: float) -> tuple[Shape, ...]:
        """The shapes, shifted."""
        return tuple(shape.moved(right, down) for shape in self.shapes)

    def until(self, step: int) -> "Scene":
        """The drawing after `step`: without the shapes of later steps."""
        return replace(self, shapes=tuple(shape for shape in self.shapes if shape.step <= step))

    @property
    def steps(self) -> int:
        """The largest step of any shape."""
        return max((shape.step for shape in self.shapes), default=0)


def beside(scenes: Sequence[Scene], gap: float = 24) -> Scene:
    """Several drawings side by side."""
    shapes, right = [], 0.0
    for scene in scenes:
        shapes += scene.moved(right, 0)
        right += scene.width + gap
    return _joined(scenes, right - gap, max(scene.height for scene in scenes), shapes)


def stacked(scenes: Sequence[Scene], gap: float = 24) -> Scene:
    """Several drawings below each other."""
    shapes, down = [], 0.0
    for scene in scenes:
        shapes += scene.moved(0, down)
        down += scene.height + gap
    return _joined(scenes, max(scene.width for scene in scenes), down - gap, shapes)


def framed(scene: Scene, margin: float = 16) -> Scene:
    """A drawing with a margin."""
    return replace(scene, width=scene.width + 2 * margin, height=scene.height + 2 * margin, shapes=scene.moved(margin, margin))


def _joined(scenes: Sequence[Scene], width: float, height: float, shapes: Iterable[Shape]) -> Scene:
    titles = dict.fromkeys(scene.title for scene in scenes)
    return Scene(width, height, "; ".join(titles), " ".join(scene.description for scene in scenes), tuple(shapes))


def fitting(text: str, width: float, size: float) -> str:
    """The text on one line, without unprintable characters, cut after as many letters as fit into `width` px on average.

    >>> fitting("a very long name", 60, 12)
    'a very...'
    """
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    most = max(4, int(width / (0.55 * size)))
    return text if len(text) <= most else text[: most - 3] + "..."
