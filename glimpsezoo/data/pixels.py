"""From the bytes of an image file to 8-bit grey or RGB, with explicit rules for depth, orientation and transparency."""

import io
import os
import warnings
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageColor, UnidentifiedImageError

from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.untrusted import is_number

Orientation = Literal["exif", "stored"]
Background = Literal["black", "white", "grey", "ignored"]

MODES = {1: "L", 3: "RGB"}
UPRIGHT = {  # EXIF orientation -> the transposition that turns it upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
TURNED_BACK = UPRIGHT | {6: UPRIGHT[8], 8: UPRIGHT[6]}
MOST = "GLIMPSEZOO_MAX_PIXELS"  # a variable of the environment
warnings.filterwarnings("ignore", module="PIL")  # `opened` has a limit of pixels instead; what cannot be decoded is an error
BITS_PER_SAMPLE, PHOTOMETRIC, MIN_IS_WHITE = 258, 262, 0  # of TIFF
DEEP = ";16"  # in Pillow's raw mode of samples of 16 bits


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How stored pixels are read."""

    orientation: Orientation = "stored"
    """'exif' turns an image upright as its EXIF tag says, 'stored' leaves it as it is stored."""
    background: Background = "ignored"
    """The colour behind transparent pixels. 'ignored' drops the transparency and shows the colours that are stored in them."""

    @property
    def rule(self) -> str:
        """The rule in words, for the transform of a data set. It is part of fingerprints."""
        upright = "upright by EXIF" if self.orientation == "exif" else "as stored, whatever EXIF says"
        return f"{upright}, transparency {'ignored' if self.background == 'ignored' else f'over {self.background}'}"


AS_STORED = Decoding()  # a plain conversion, as for the published numbers on the sets in the catalogue


class Decoded(NamedTuple):
    """An 8-bit image."""

    image: Image.Image
    conversions: tuple[str, ...]
    """What was done to it beyond a lossless change of colour space, in words."""


def decoded(content: bytes, channels: int, decoding: Decoding = AS_STORED) -> Decoded:
    """Decode an image to grey (1 channel) or RGB (3), 8 bits per channel.

    Deeper images are scaled from full scale to full scale, never truncated. Raises ValueError if the full scale is unknown, and whatever
    Pillow's decoders raise for content that is not an image.
    """
    return converted(opened(content), channels, decoding)


def opened(content: bytes) -> Image.Image:
    """An image of which only the header was read. Raises ValueError for other content, and for more pixels than `most_pixels`."""
    most = most_pixels()
    try:
        image = Image.open(io.BytesIO(content))
        size = image.width * image.height
    except UnidentifiedImageError:  # its message contains a memory address, which differs between runs
        raise ValueError("no image format that Pillow knows") from None
    except Image.DecompressionBombError:  # at twice Pillow's limit
        raise ValueError(_too_many(f"more than {2 * most:,.0f} pixels", most)) from None
    if size > most:
        raise ValueError(_too_many(f"{size:,} pixels", most))
    return image


def check_resized(width: int, height: int) -> None:
    """Raise ValueError if an image has more pixels than `most_pixels` once it is resized: a thin one may have few in its file."""
    most = most_pixels()
    if width * height > most:
        raise ValueError(_too_many(f"{width} x {height} pixels once it is resized", most))


def _too_many(pixels: str, most: float) -> str:
    return f"{pixels}, and {most:,.0f} are the most: shrink it, or raise {MOST}, which takes about 16 bytes of memory per pixel"


def most_pixels() -> float:
    """The most pixels of an image that is decoded: $GLIMPSEZOO_MAX_PIXELS, or Pillow's `Image.MAX_IMAGE_PIXELS`.

    Raises `GlimpseZooError` for a variable that is no number.
    """
    if given := os.environ.get(MOST):
        if not is_number(given):
            raise GlimpseZooError(f"{MOST} expects a number of pixels, got {given!r}: correct it in the environment, or unset it")
        Image.MAX_IMAGE_PIXELS = int(given)
    return float("inf") if Image.MAX_IMAGE_PIXELS is None else Image.MAX_IMAGE_PIXELS


def converted(image: Image.Image, channels: int, decoding: Decoding = AS_STORED) -> Decoded:
    """An image of Pillow's, just opened or made in memory, as `decoded` converts the content of a file."""
    said = ["first of several frames"] if getattr(image, "is_animated", False) else []  # only formats with frames have the attribute
    deep = _deep_colour(image)  # first, because to look for EXIF may load a PNG
    turned_by_pillow = image.format == "TIFF"
    turn = _orientation(image) if turned_by_pillow or decoding.orientation == "exif" else None
    image.load()
    said += [deep] if deep else []
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bits(image)
        said.append("scaled to 8 bits")
    if turn is not None and decoding.orientation == "exif":
        said.append("turned upright")
    if turn is not None and turned_by_pillow != (decoding.orientation == "exif"):
        image = image.transpose((TURNED_BACK if turned_by_pillow else UPRIGHT)[turn])
    if image.has_transparency_data and decoding.background != "ignored":
        image, shows = _laid_over(image, decoding.background)
        said += [f"laid over {decoding.background}"] if shows else []
    if image.mode == "CMYK":
        said.append("CMYK to RGB without a colour profile")
    return Decoded(image.convert(MODES[channels]), tuple(said))


def _orientation(image: Image.Image) -> int | None:
    """The EXIF orientation of an image; None if it is stored upright or has no readable EXIF."""
    try:
        turn = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # Pillow's parser raises anything from SyntaxError to struct.error
        return None
    return turn if turn in UPRIGHT else None


def _laid_over(image: Image.Image, background: str) -> tuple[Image.Image, bool]:
    """A transparent image over a background, and whether any of the background is visible."""
    image = image.convert("RGBA")
    colour = (*ImageColor.getrgb(background)[:3], 255)
    lowest = image.getextrema()[3][0]  # pyright: ignore[reportIndexIssue, reportGeneralTypeIssues] # one pair per band of RGBA
    return Image.alpha_composite(Image.new("RGBA", image.size, colour), image).convert("RGB"), lowest < 255


def _deep_colour(image: Any) -> str:
    """What Pillow does with 16 bits per channel of colour, in words; '' for other images. image: not loaded yet.

    Raises ValueError if Pillow would take each byte for a sample.
    """
    tiles = getattr(image, "tile", ())  # an image made in memory does not have the attribute
    if not tiles or image.mode.startswith("I"):
        return ""
    given = tiles[0][3]
    arguments: tuple[Any, ...] = given if isinstance(given, tuple) else (given,)  # of Pillow's decoder: the raw mode first, if it has one
    raw = arguments[0] if isinstance(arguments[0], str) else ""
    if image.format == "PPM":
        return "scaled to 8 bits" if arguments[1] > 255 else ""
    if image.format == "TIFF" and raw and len(raw) < len(image.mode) and max(image.tag_v2.get(BITS_PER_SAMPLE, (8,))) > 8:
        raise ValueError("more than 8 bits per channel in separate planes, which Pillow reads as 8: store the channels together")
    return "cut to the high 8 of 16 bits" if DEEP in raw else ""


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale a grey image of more than 8 bits from its full scale to 0..255. Raises ValueError if the full scale is unknown."""
    top = _full_scale(image)
    pixels = np.asarray(image).astype(np.float64)  # [H, W]
    lowest, highest = float(pixels.min()), float(pixels.max())
    if not 0 <= lowest <= highest <= top:  # NaN compares false
        raise ValueError(f"pixels of {lowest:g} to {highest:g} where 0 to {top} is full scale: scale the file")
    grey = np.round(pixels * (255 / top)).astype(np.uint8)
    if image.format == "TIFF" and image.tag_v2.get(PHOTOMETRIC) == MIN_IS_WHITE:  # pyright: ignore[reportAttributeAccessIssue]
        grey = 255 - grey
    key = image.info.get("transparency")  # the transparent grey value of a PNG
    if not isinstance(key, int):
        return Image.fromarray(grey)
    alpha = np.where(pixels == key, 0, 255).astype(np.uint8)
    return Image.merge("LA", (Image.fromarray(grey), Image.fromarray(alpha)))


def _full_scale(image: Image.Image) -> int:
    """The value of white, from the number of bits that the file declares; 1 for floating point."""
    if image.mode == "F":
        return 1
    if image.mode.startswith("I;16"):
        if image.format == "TIFF":
            return 2 ** image.tag_v2.get(BITS_PER_SAMPLE, (16,))[0] - 1  # pyright: ignore[reportAttributeAccessIssue]
        return 2**16 - 1
    if image.format in {"PNG", "PPM"}:  # 16 bits, though some versions of Pillow open them as 32
        return 2**16 - 1
    raise ValueError(f"a {image.format} of 32-bit or signed integers, whose full scale is not known: store it in 8 or 16 bits")
