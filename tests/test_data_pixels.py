"""Depth, orientation and transparency: full scale stays full scale, images are upright, transparent pixels show a stated colour."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from data_files import encoded, flat, opened, save
from PIL import Image

from glimpsezoo.data import BadImageError, batches
from glimpsezoo.data.pixels import Decoding, decoded

OPEN = Decoding(orientation="exif", background="black")


def stored(pixels: np.ndarray, kind: str = "PNG", **how: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **how)
    return stream.getvalue()


def deep_png(pixels: np.ndarray) -> bytes:
    """A PNG of 16 bits per channel, which Pillow reads but does not write. pixels: [H, W, C]."""
    height, width, channels = pixels.shape
    head = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels))
    parts = [(b"IHDR", head), (b"IDAT", rows), (b"IEND", b"")]
    chunks = [struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def deep_tiff(pixels: np.ndarray, order: str, *, planes: bool = False) -> bytes:
    """A TIFF of 16 bits per channel in this order of bytes ('<' or '>'). pixels: [H, W, 3]. planes: whether channels are apart."""
    height, width, _ = pixels.shape
    body = (pixels.transpose(2, 0, 1) if planes else pixels).astype(f"{order}u2").tobytes()
    each, strips = len(body) // 3, 8 + 6 + len(body)
    content = struct.pack(f"{order}3H", 16, 16, 16) + body + (struct.pack(f"{order}6I", 14, 14 + each, 14 + 2 * each, *[each] * 3))
    offset, count, strip = (strips, 3, 4) if planes else (14, 1, 4)
    tags = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, 3, 8), (259, 3, 1, 1), (262, 3, 1, 2), (273, strip, count, offset)]
    tags += [(277, 3, 1, 3), (278, 3, 1, height), (279, 4, count, strips + 12 if planes else len(body)), (284, 3, 1, 1 + planes)]
    packed = [
        struct.pack(f"{order}HHIH2x" if kind == 3 and number == 1 else f"{order}HHII", tag, kind, number, value)
        for tag, kind, number, value in tags
    ]
    directory = struct.pack(f"{order}H", len(tags)) + b"".join(packed) + bytes(4)
    return (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8 + len(content)) + content + directory


def grey(content: bytes, decoding: Decoding = OPEN) -> int:
    """The value of the top left pixel."""
    return np.asarray(decoded(content, 1, decoding).image)[0, 0].item()


@pytest.mark.parametrize("share", [0.0, 0.2, 0.8, 1.0])
@pytest.mark.parametrize("channels", [1, 3])
def test_more_than_eight_bits_are_scaled(share: float, channels: int) -> None:
    deep = np.full((4, 4), round(share * 65535), "uint16")
    portable = b"P5 4 4 4095\n" + np.full(16, round(share * 4095), ">u2").tobytes()
    of_colour = b"P6 4 4 65535\n" + np.full(48, round(share * 65535), ">u2").tobytes()
    files = [stored(deep), stored(deep, "TIFF"), stored((deep / 65535).astype("float32"), "TIFF"), portable, of_colour]
    for content in files:
        pixels = np.asarray(decoded(content, channels, OPEN).image)
        assert abs(pixels.astype(float) / 255 - share).max() < 0.003
    assert {decoded(content, channels, OPEN).conversions for content in files} == {("scaled to 8 bits",)}


def test_sixteen_bits_of_colour_are_told_or_refused() -> None:
    """The high byte is at most one of 255 levels below full scale, rounded."""
    deep = np.random.default_rng(0).integers(0, 65536, (12, 10, 4), dtype="uint16")
    colours = deep[..., :3]
    for content in (deep_png(colours), deep_png(deep), deep_tiff(colours, "<"), deep_tiff(colours, ">")):
        image, said = decoded(content, 3)
        assert np.abs(np.asarray(image) - np.round(colours / 257)).max() <= 1
        assert said[0] == "cut to the high 8 of 16 bits"
    assert decoded(deep_png(deep[..., :2]), 1).conversions[0] == "cut to the high 8 of 16 bits"
    with pytest.raises(ValueError, match="separate planes"):
        decoded(deep_tiff(np.full((4, 4, 3), 13107), "<", planes=True), 3)


def test_white_may_be_zero_in_a_tiff() -> None:
    assert grey(stored(np.full((4, 4), 13107, "uint16"), "TIFF", tiffinfo={262: 0})) == 204


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (np.full((4, 4), 70000, "int32"), "full scale is not known"),
        (np.full((4, 4), 200, "float32"), "where 0 to 1 is full scale"),
        (np.full((4, 4), np.nan, "float32"), "where 0 to 1 is full scale"),
        (np.full((4, 4), -0.5, "float32"), "where 0 to 1 is full scale"),
    ],
)
def test_what_has_no_known_full_scale_is_a_bad_image(tmp_path: Path, pixels: np.ndarray, words: str) -> None:
    for label in ("a", "b"):
        for k in range(5):
            place = tmp_path / label / f"{k}.tif"
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(stored(pixels, "TIFF"))
    data = opened(f"folder:{tmp_path}", "test", size=16)
    with pytest.raises(BadImageError, match=words) as raised:
        data[0]
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_images_are_turned_upright_unless_they_are_wanted_as_stored(orientation: int, kind: str) -> None:
    upright = Image.new("L", (32, 48), 0)
    upright.paste(255, (0, 0, 16, 16))  # white in the top left corner
    ways = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the reverse of turning it upright
    turned = upright if orientation == 1 else upright.transpose(Image.Transpose(ways[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    turned.save(stream, kind, exif=exif)
    found = decoded(stream.getvalue(), 1, OPEN)
    assert np.allclose(np.asarray(found.image), np.asarray(upright), atol=30)
    assert found.conversions == (() if orientation == 1 else ("turned upright",))
    as_stored = decoded(stream.getvalue(), 1)
    assert np.allclose(np.asarray(as_stored.image), np.asarray(turned), atol=30)


def transparent(mode: str) -> bytes:
    """Light and opaque on the left; transparent on the right, where the stored colour is light, too."""
    image = Image.new("RGBA", (8, 8), (200, 200, 200, 0))
    image.paste((200, 200, 200, 255), (0, 0, 4, 8))
    if mode != "P":
        return encoded(image.convert(mode))
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([200, 200, 200, 200, 200, 200])
    palette.paste(1, (4, 0, 8, 8))
    stream = io.BytesIO()
    palette.save(stream, "PNG", transparency=1)
    return stream.getvalue()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
@pytest.mark.parametrize(("background", "value"), [("black", 0), ("white", 255), ("grey", 128), ("ignored", 200)])
@pytest.mark.parametrize("channels", [1, 3])
def test_transparent_pixels_lie_over_the_background(mode: str, background: str, value: int, channels: int) -> None:
    found = decoded(transparent(mode), channels, Decoding(orientation="exif", background=background))  # pyright: ignore[reportArgumentType]
    pixels = np.asarray(found.image)
    assert (pixels[:, :4] == 200).all()
    assert (pixels[:, 4:] == value).all()
    assert found.conversions == (() if background == "ignored" else (f"laid over {background}",))


def test_opaque_images_are_not_said_to_lie_over_anything() -> None:
    assert decoded(encoded(flat(90).convert("RGBA")), 3, OPEN).conversions == ()


def test_half_transparent_pixels_mix() -> None:
    assert grey(encoded(Image.new("RGBA", (4, 4), (200, 200, 200, 128))), Decoding(background="white")) == pytest.approx(227, abs=1)


@pytest.mark.parametrize(("mode", "kind"), [("1", "PNG"), ("L", "PNG"), ("P", "PNG"), ("RGB", "PNG"), ("CMYK", "JPEG"), ("CMYK", "TIFF")])
def test_other_kinds_of_pixels_are_converted(mode: str, kind: str) -> None:
    image = flat(255).convert(mode)
    found = decoded(encoded(image, kind), 3, OPEN)
    assert np.asarray(found.image).min() >= 250
    assert found.conversions == (("CMYK to RGB without a colour profile",) if mode == "CMYK" else ())


def test_of_several_frames_the_first_is_read_and_that_is_said() -> None:
    stream = io.BytesIO()
    flat(200).save(stream, "GIF", save_all=True, append_images=[flat(50)])
    found = decoded(stream.getvalue(), 1, OPEN)
    assert np.asarray(found.image)[0, 0] == 200
    assert found.conversions == ("first of several frames",)


def test_settings_decide_and_are_part_of_the_fingerprint(tmp_path: Path) -> None:
    for label in ("a", "b"):
        for k in range(5):
            place = tmp_path / label / f"{k}.png"
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(transparent("RGBA"))
    black, white = (opened(f"folder:{tmp_path}", "test", size=8, background=colour) for colour in ("black", "white"))
    assert black.info.fingerprint != white.info.fingerprint
    assert not torch.equal(black[0].image, white[0].image)
    (batch,) = batches(black, 0, 2, 2)
    assert batch.conversions == (("laid over black", 2),)
    assert "transparency over white" in white.info.transform


def test_a_sixteen_bit_image_of_a_class_folder_is_not_white(tmp_path: Path) -> None:
    for label, share in (("dark", 0.2), ("light", 0.8)):
        for k in range(5):
            save(Image.fromarray(np.full((16, 16), share * 65535, "uint16")), tmp_path / label / f"{k}.png")
    data = opened(f"folder:{tmp_path}", "test", size=16)
    assert [round(data[k].image.mean().item(), 2) for k in range(2)] == [0.2, 0.8]
