"""A drawing as a list of shapes, in units of a CSS pixel from the top left corner: what both writers, svg and raster, draw.

Colours are roles, so that the same drawing is readable on light and on dark paper.
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
    """The colour role of the `index`-th of several things; they repeat after eight."""
    return f"s{index % SERIES}"


@dataclass(frozen=True, kw_only=True)
class Shape:
    """x, y: its place. step: the look that it belongs to, 0 for none. tip: what a reader is told who points at it."""

    x: float
    y: float
    step: int = 0
    tip: str = ""

    def moved(self, right: float, down: float) -> Self:
        return replace(self, x=self.x + right, y=self.y + down)


@dataclass(frozen=True, kw_only=True)
class Box(Shape):
    """A rectangle from its top left corner. fill, stroke: colour roles, '' for none. line: the stroke's width."""

    width: float
    height: float
    fill: str = ""
    stroke: str = ""
    line: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Path(Shape):
    """Straight lines through `points`, (x, y) from the shape's place."""

    points: tuple[tuple[float, float], ...]
    stroke: str = "ink"
    line: float = 1.5
    dashed: bool = False


@dataclass(frozen=True, kw_only=True)
class Dot(Shape):
    """A disc around its place."""

    radius: float
    fill: str = "ink"


@dataclass(frozen=True, kw_only=True)
class Words(Shape):
    """One line of text whose baseline begins, ends or is centred (anchor: start, end, middle) at its place. size: in px."""

    text: str
    size: float = 12.0
    fill: str = "ink"
    anchor: str = "start"
    bold: bool = False


@dataclass(frozen=True, kw_only=True)
class Bitmap(Shape):
    """Pixels [h, w, 3] of 8 bits, enlarged to width x height without smoothing."""

    width: float
    height: float
    pixels: UInt8[ndarray, "h w 3"]


@dataclass(frozen=True)
class Scene:
    """A drawing of width x height. title, description: what it shows, in words, for those who do not see it."""

    width: float
    height: float
    title: str
    description: str
    shapes: tuple[Shape, ...]

    def moved(self, right: float, down: float) -> tuple[Shape, ...]:
        """Its shapes, elsewhere."""
        return tuple(shape.moved(right, down) for shape in self.shapes)

    def until(self, step: int) -> "Scene":
        """As it is after `step`: without what belongs to later ones."""
        return replace(self, shapes=tuple(shape for shape in self.shapes if shape.step <= step))

    @property
    def steps(self) -> int:
        """The last step that a shape belongs to."""
        return max((shape.step for shape in self.shapes), default=0)


def beside(scenes: Sequence[Scene], gap: float = 24) -> Scene:
    """Several drawings, one beside the other."""
    shapes, right = [], 0.0
    for scene in scenes:
        shapes += scene.moved(right, 0)
        right += scene.width + gap
    return _joined(scenes, right - gap, max(scene.height for scene in scenes), shapes)


def stacked(scenes: Sequence[Scene], gap: float = 24) -> Scene:
    """Several drawings, one below the other."""
    shapes, down = [], 0.0
    for scene in scenes:
        shapes += scene.moved(0, down)
        down += scene.height + gap
    return _joined(scenes, max(scene.width for scene in scenes), down - gap, shapes)


def framed(scene: Scene, margin: float = 16) -> Scene:
    """A drawing with white space around it."""
    return replace(scene, width=scene.width + 2 * margin, height=scene.height + 2 * margin, shapes=scene.moved(margin, margin))


def _joined(scenes: Sequence[Scene], width: float, height: float, shapes: Iterable[Shape]) -> Scene:
    titles = dict.fromkeys(scene.title for scene in scenes)
    return Scene(width, height, "; ".join(titles), " ".join(scene.description for scene in scenes), tuple(shapes))


def fitting(text: str, width: float, size: float) -> str:
    """The text on one line, cut behind so many letters as `width` px hold on average, without what cannot be printed.

    >>> fitting("a very long name", 60, 12)
    'a very...'
    """
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    most = max(4, int(width / (0.55 * size)))
    return text if len(text) <= most else text[: most - 3] + "..."
