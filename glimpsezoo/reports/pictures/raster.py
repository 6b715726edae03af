"""A scene as pixels: PNG, or GIF with one frame per step."""

import functools
import io
import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

from PIL import Image, ImageDraw, ImageFont

from glimpsezoo.reports.pictures.scene import LIGHT, Bitmap, Box, Dot, Path, Scene, Shape, Words

ZOOM = 2  # image pixels per pixel of the scene, for high-resolution screens
DASH, SPACE = 5.0, 4.0
FRAME, LAST = 700, 1800  # milliseconds per GIF frame, and for the last frame of an image
_ANCHORS = {"start": "ls", "middle": "ms", "end": "rs"}


def painted(scene: Scene, zoom: int = ZOOM) -> Image.Image:
    """The scene in RGB on a white background."""
    image = Image.new("RGB", (math.ceil(scene.width * zoom), math.ceil(scene.height * zoom)), LIGHT["paper"])
    draw = ImageDraw.Draw(image)
    for shape in scene.shapes:
        _paint(shape, draw, image, zoom)
    return image


def png_file(scene: Scene) -> bytes:
    """The content of a PNG file."""
    file = io.BytesIO()
    painted(scene).save(file, "PNG", optimize=True)
    return file.getvalue()


def gif_file(scenes: Sequence[Scene]) -> bytes:
    """The content of a GIF file: one scene after the other, each step by step."""
    width, height = (max(getattr(scene, side) for scene in scenes) for side in ("width", "height"))
    frames, times = [], []
    for scene in scenes:
        for step in range(1, max(1, scene.steps) + 1):
            now = scene.until(step)
            frames.append(painted(Scene(width, height, now.title, now.description, now.shapes), 1))
            times.append(FRAME if step < scene.steps else LAST)
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=times, loop=0)
    return file.getvalue()


@functools.singledispatch
def _paint(shape: Shape, draw: ImageDraw.ImageDraw, image: Image.Image, zoom: int) -> None:
    raise TypeError(f"expected a shape that can be painted, got {type(shape).__name__}")


@_paint.register
def _box(shape: Box, draw: ImageDraw.ImageDraw, image: Image.Image, zoom: int) -> None:
    half = shape.line / 2 if shape.stroke else 0  # Pillow draws outlines inside the edge, SVG centred on it
    left, top = (shape.x - half) * zoom, (shape.y - half) * zoom
    corners = (left, top, left + (shape.width + 2 * half) * zoom - 1, top + (shape.height + 2 * half) * zoom - 1)
    if corners[2] >= left and corners[3] >= top:
        draw.rectangle(corners, _colour(shape.fill), _colour(shape.stroke), max(1, round(shape.line * zoom)))


@_paint.register
def _path(shape: Path, draw: ImageDraw.ImageDraw, image: Image.Image, zoom: int) -> None:
    points = [((shape.x + x) * zoom, (shape.y + y) * zoom) for x, y in shape.points]
    width, colour = max(1, round(shape.line * zoom)), _colour(shape.stroke)
    if not shape.dashed:
        draw.line(points, colour, width, joint="curve")
        return
    for start, end in pairwise(points):
        for dash in _dashes(start, end, zoom):
            draw.line(dash, colour, width)


def _dashes(start: tuple[float, float], end: tuple[float, float], zoom: int) -> Iterator[list[tuple[float, float]]]:
    """The dashes of a line from `start` to `end`."""
    length = math.dist(start, end)
    for k in range(math.ceil(length / ((DASH + SPACE) * zoom))):
        shares = [min(1.0, at * zoom / length) for at in (k * (DASH + SPACE), k * (DASH + SPACE) + DASH)]
        yield [(start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])) for share in shares]


@_paint.register
def _dot(shape: Dot, draw: ImageDraw.ImageDraw, image: Image.Image, zoom: int) -> None:
    x, y, radius = shape.x * zoom, shape.y * zoom, shape.radius * zoom
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), _colour(shape.fill))


@_paint.register
def _words(shape: Words, draw: ImageDraw.ImageDraw, image: Image.Image, zoom: int) -> None:
    font, weight = _font(shape.size * zoom), zoom / 3  # bold: the text is drawn twice, slightly shifted to the right
    for right in (0, weight) if shape.bold else (0,):
        draw.text((shape.x * zoom + right, shape.y * zoom), shape.text, _colour(shape.fill), font, _ANCHORS[shape.anchor])


@_paint.register
def _bitmap(shape: Bitmap, draw: ImageDraw.ImageDraw, image: Image.Image, zoom: int) -> None:
    size = (max(1, round(shape.width * zoom)), max(1, round(shape.height * zoom)))
    image.paste(Image.fromarray(shape.pixels).resize(size, Image.Resampling.NEAREST), (round(shape.x * zoom), round(shape.y * zoom)))


def _colour(role: str) -> str | None:
    return LIGHT[role] if role else None


@functools.cache
def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
