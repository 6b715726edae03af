"""A scene as SVG: a standalone file, or part of a page that defines its colours."""

import base64
import functools
import io

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image

from glimpsezoo.escaping import html
from glimpsezoo.reports.pictures.scene import DARK, LIGHT, Bitmap, Box, Dot, Path, Scene, Shape, Words

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"
EXACT = 100  # px: larger images may be compressed with losses


def svg_file(scene: Scene) -> str:
    """A standalone SVG file, light or dark as the page around it or the reader's system. Its own background keeps it readable anywhere."""
    style = f"<style>:root{{color-scheme:light dark}}text{{font-family:{FONT}}}{themed()}</style>"
    paper = f'<rect width="{_n(scene.width)}" height="{_n(scene.height)}" rx="6" class="f-paper"/>'
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{_svg(scene, style + paper, exact=True)}\n'


def svg_part(scene: Scene, name: str) -> str:
    """An SVG element for a page. name: unique on the page; letters, digits and hyphens."""
    return _svg(scene, "", exact=False, name=name)


def themed() -> str:
    """The style sheet of the colour roles, in light and in dark mode."""
    return f"{colour_classes(LIGHT)}@media(prefers-color-scheme:dark){{{colour_classes(DARK)}}}"


def colour_classes(colours: dict[str, str]) -> str:
    """The style sheet of the colour roles. colours: role -> any CSS colour."""
    return "".join(f".f-{role}{{fill:{value}}}.s-{role}{{stroke:{value}}}" for role, value in colours.items())


def _svg(scene: Scene, head: str, *, exact: bool, name: str = "") -> str:
    width, height = _n(scene.width), _n(scene.height)
    title, description = (f"{name}-{part}" if name else part for part in ("title", "description"))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" '
        f'aria-labelledby="{title} {description}">',
        f'<title id="{title}">{html(scene.title)}</title><desc id="{description}">{html(scene.description)}</desc>{head}',
    ]
    for shape in scene.shapes:
        parts.append(_element(shape, exact=exact))
    return "".join(parts) + "</svg>"


def _element(shape: Shape, *, exact: bool) -> str:
    tag, attributes, content = _drawn(shape, exact=exact)
    tip = f"<title>{html(shape.tip)}</title>" if shape.tip else ""
    step = f' data-step="{shape.step}"' if shape.step else ""
    return f"<{tag}{attributes}{step}>{tip}{content}</{tag}>"


@functools.singledispatch
def _drawn(shape: Shape, *, exact: bool) -> tuple[str, str, str]:
    """The tag, attributes and content of a shape's element."""
    raise TypeError(f"expected a shape that can be drawn, got {type(shape).__name__}")


@_drawn.register
def _box(shape: Box, *, exact: bool) -> tuple[str, str, str]:
    stroke = f' stroke-width="{_n(shape.line)}"' if shape.stroke else ""
    return "rect", f"{_place(shape)} {_size(shape)}{stroke}{_classes(shape.fill, shape.stroke)}", ""


@_drawn.register
def _path(shape: Path, *, exact: bool) -> tuple[str, str, str]:
    points = " ".join(f"{_n(shape.x + x)},{_n(shape.y + y)}" for x, y in shape.points)
    dashes = ' stroke-dasharray="5 4"' if shape.dashed else ""
    return "polyline", f' points="{points}" stroke-width="{_n(shape.line)}"{dashes}{_classes("", shape.stroke)}', ""


@_drawn.register
def _dot(shape: Dot, *, exact: bool) -> tuple[str, str, str]:
    return "circle", f' cx="{_n(shape.x)}" cy="{_n(shape.y)}" r="{_n(shape.radius)}"{_classes(shape.fill, "")}', ""


@_drawn.register
def _words(shape: Words, *, exact: bool) -> tuple[str, str, str]:
    weight = ' font-weight="600"' if shape.bold else ""
    anchor = f' text-anchor="{shape.anchor}"' if shape.anchor != "start" else ""
    return "text", f'{_place(shape)} font-size="{_n(shape.size)}"{anchor}{weight}{_classes(shape.fill, "")}', html(shape.text)


@_drawn.register
def _bitmap(shape: Bitmap, *, exact: bool) -> tuple[str, str, str]:
    return "image", (
        f'{_place(shape)} {_size(shape)} preserveAspectRatio="none" style="image-rendering:pixelated" '
        f'href="{data_uri(shape.pixels, exact=exact)}"'
    ), ""  # fmt: skip


def data_uri(pixels: UInt8[ndarray, "h w 3"], *, exact: bool) -> str:
    """An image as a `data:` URI. exact: without losses."""
    grey = bool((pixels[..., :1] == pixels).all())
    image, file = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if grey else pixels)), io.BytesIO()
    if exact or max(pixels.shape[:2]) <= EXACT:
        image.save(file, "PNG", optimize=True)
        kind = "png"
    else:
        image.save(file, "JPEG", quality=85)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def _place(shape: Shape) -> str:
    return f' x="{_n(shape.x)}" y="{_n(shape.y)}"'


def _size(shape: Box | Bitmap) -> str:
    return f'width="{_n(shape.width)}" height="{_n(shape.height)}"'


def _classes(fill: str, stroke: str) -> str:
    names = " ".join([f"f-{fill}"] * bool(fill) + [f"s-{stroke}"] * bool(stroke))
    return f' class="{names}"' + ("" if fill else ' fill="none"')


def _n(value: float) -> str:
    """A number with at most two decimals."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
