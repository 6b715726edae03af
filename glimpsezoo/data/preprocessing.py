"""From any image that a user has to what a model takes: decoded, resized and cropped as the model's data are, or refused in one line."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from glimpsezoo.data.config import OpenSettings
from glimpsezoo.data.images import Fit, to_tensor
from glimpsezoo.data.pixels import MODES, Decoding, converted, opened
from glimpsezoo.errors import GlimpseZooError, one_line, why_not
from glimpsezoo.untrusted import IMAGE_SIZE, read_regular

AnyImage = str | Path | bytes | Image.Image | np.ndarray | Tensor
"""One image: a file, the content of a file, an image of Pillow's, an array [H, W, C] or [H, W], or a tensor [C, H, W] or [H, W]."""
COLOURED = ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr", "HSV", "LAB", "RGBX", "RGBa")  # modes of Pillow's with more than a grey value


def decoding_of(config: OpenSettings) -> Decoding:
    """How images are read by these settings."""
    return Decoding(orientation=config.orientation, background=config.background)


UPRIGHT_OVER_BLACK = decoding_of(OpenSettings.parse({}, owner="data"))  # as any folder of images is read


class Window(NamedTuple):
    """A rectangle in pixels of an image as it was given, but upright. It may reach beyond the image."""

    left: float
    top: float
    width: float
    height: float

    def part(self, left: float, top: float, width: float, height: float) -> "Window":
        """The part of this window that is given in shares of its sides."""
        return Window(self.left + left * self.width, self.top + top * self.height, width * self.width, height * self.height)


class FittedImage(NamedTuple):
    """An image as a model takes it."""

    pixels: Tensor
    """[C, H, W] in [0, 1], float32."""
    window: Window
    """What they show of the image as it was given."""
    conversions: tuple[str, ...]
    """What was done to it beyond resizing, cropping and a lossless change of colour space, in words."""


class Preprocessing(nn.Module):
    """Any image -> the pixels [C, H, W] in [0, 1] that a model takes. It is a transform as torchvision has them.

    Files, the content of files, and Pillow's images are decoded, brought to the model's number of channels, resized and cropped, exactly
    as the images of a data set are. So are arrays [H, W, C] (or [H, W]) and tensors [C, H, W] (or [H, W]), of 8 bits or of floats in
    [0, 1], but one that has the model's size already is taken as it is. Anything else is a `GlimpseZooError` that says what to do.
    """

    def __init__(self, image_size: tuple[int, int], channels: int, crop: float = 1.0, decoding: Decoding = UPRIGHT_OVER_BLACK) -> None:
        """image_size: (height, width) in pixels. crop: the share of the shorter side that the centre crop covers."""
        super().__init__()
        self.image_size, self.channels, self.crop, self.decoding = image_size, channels, crop, decoding

    def extra_repr(self) -> str:
        height, width = self.image_size
        colours = {1: "grey", 3: "RGB"}.get(self.channels, f"{self.channels} channels")
        return f"{colours}, {self.decoding.rule}, {height} x {width} px (bilinear), centre crop {self.crop:.1%}"

    def forward(self, image: AnyImage) -> Float[Tensor, "C H W"]:
        return self.fit(image).pixels

    def fit(self, image: AnyImage | object) -> FittedImage:
        """The pixels, and what was done. Raises `GlimpseZooError` for what is not an image that fits the model."""
        if isinstance(image, str | Path | bytes):
            return self._of_file(image)
        if isinstance(image, Image.Image):
            return self._of_pillow(image)
        if isinstance(image, np.ndarray):
            return self._of_planes(_planes_of_array(image, self.channels))
        if isinstance(image, Tensor):
            return self._of_planes(_planes_of_tensor(image, self.channels))
        raise GlimpseZooError(
            f"expected an image (a file, bytes, PIL.Image, array or tensor), got {type(image).__name__!r}: convert it to one of these"
        )

    def _of_file(self, file: str | Path | bytes) -> FittedImage:
        name = f"{len(file):,} bytes" if isinstance(file, bytes) else repr(str(file))
        if not isinstance(file, bytes) and Path(file).is_dir():
            raise GlimpseZooError(f"expected an image file, got the folder {name}: name its files, or use 'glimpsezoo predict'")
        try:
            with opened(file if isinstance(file, bytes) else read_regular(file, IMAGE_SIZE)) as image:
                return self._of_pillow(image)
        except GlimpseZooError as error:
            raise GlimpseZooError(f"{name}: {error}") from None
        except Exception as error:  # of the file system, and of Pillow's decoders, which raise anything
            raise GlimpseZooError(f"expected an image file, got {name} ({why_not(error):.160}): name another") from None

    def _of_pillow(self, image: Image.Image) -> FittedImage:
        if self.channels not in MODES:
            raise GlimpseZooError(
                f"expected a tensor [{self.channels}, H, W] for this model, got an image of Pillow's, which is grey or RGB: stack channels"
            )
        greyed = self.channels == 1 and image.mode in COLOURED and not _is_grey(image)
        try:
            found = converted(image, self.channels, self.decoding)
        except Exception as error:  # Pillow's decoders raise anything from OSError to struct.error
            raise GlimpseZooError(f"expected an image, got one that cannot be decoded ({one_line(error):.120}): name another") from None
        fit = self._fit(found.image.size)
        said = (*found.conversions, "colours to grey") if greyed else found.conversions
        return FittedImage(to_tensor(fit(found.image)), _window(fit, found.image.size), said)

    def _of_planes(self, planes: np.ndarray) -> FittedImage:
        """planes: [C, h, w] of 8 bits, or of floats in [0, 1]."""
        size = planes.shape[2], planes.shape[1]
        if size[::-1] == self.image_size:
            whole = Window(0, 0, *size)
            return FittedImage(_in_unit(planes), whole, ())
        fit = self._fit(size)
        resized = [np.asarray(fit(Image.fromarray(np.ascontiguousarray(plane)))) for plane in planes]
        return FittedImage(_in_unit(np.stack(resized)), _window(fit, size), ())

    def _fit(self, stored: tuple[int, int]) -> Fit:
        try:
            return Fit.of(stored, self.image_size, self.crop)
        except ValueError as error:
            raise GlimpseZooError(f"expected an image that can be resized, got {error}") from None


def _is_grey(image: Image.Image) -> bool:
    """Whether all pixels are grey, so that nothing is lost without colours."""
    red, green, blue = np.moveaxis(np.asarray(image.convert("RGB")), -1, 0)
    return bool((red == green).all() and (green == blue).all())


def _in_unit(planes: np.ndarray) -> Float[Tensor, "C H W"]:
    """Pixels in [0, 1], of 8 bits as `to_tensor` has them."""
    if planes.dtype == np.uint8:
        return torch.from_numpy(np.divide(planes, np.float32(255), dtype=np.float32, order="C"))
    return torch.from_numpy(np.array(planes, dtype=np.float32, order="C"))


def _window(fit: Fit, stored: tuple[int, int]) -> Window:
    across, down = stored[0] / fit.resized[0], stored[1] / fit.resized[1]  # pixels of the given image per pixel of the resized one
    return Window(fit.corner[0] * across, fit.corner[1] * down, fit.size[0] * across, fit.size[1] * down)


def _planes_of_array(array: np.ndarray, channels: int) -> np.ndarray:
    """[H, W, C] or [H, W] -> [C, H, W], checked."""
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3:
        raise GlimpseZooError(
            f"expected an array [H, W, C] or [H, W] for one image, got {list(array.shape)}: give images one by one, or [N, H, W, C]"
        )
    if array.shape[2] != channels:
        raise _channels("an array [H, W, C]", array.shape, array.shape[2], channels)
    return _checked(array.transpose(2, 0, 1))


def _planes_of_tensor(tensor: Tensor, channels: int) -> np.ndarray:
    """[C, H, W] or [H, W] -> [C, H, W], checked."""
    tensor = tensor.detach().cpu()
    if tensor.ndim == 2:
        tensor = tensor[None]
    if tensor.ndim != 3:
        raise GlimpseZooError(
            f"expected a tensor [C, H, W] or [H, W] for one image, got {list(tensor.shape)}: give images one by one, or [N, C, H, W]"
        )
    if tensor.shape[0] != channels:
        raise _channels("a tensor [C, H, W]", tuple(tensor.shape), tensor.shape[0], channels)
    return _checked((tensor.float() if tensor.is_floating_point() else tensor).numpy())


def _channels(expected: str, shape: Sequence[int], got: int, channels: int) -> GlimpseZooError:
    """The error for another number of channels."""
    wanted = {1: "one channel (grey)", 3: "3 channels (RGB)"}.get(channels, f"{channels} channels")
    remedy = "convert it, or give a file or an image of Pillow's, which is converted"
    if channels in shape and got != channels:
        remedy = f"move the axis of channels, or {remedy}"
    return GlimpseZooError(f"expected {expected} with {wanted}, got {list(shape)}: {remedy}")


def _checked(planes: np.ndarray) -> np.ndarray:
    """The planes [C, H, W] if they are of 8 bits, or floats in [0, 1]; floats as float32."""
    if 0 in planes.shape:
        raise GlimpseZooError(f"expected an image with pixels, got none ([C, H, W] = {list(planes.shape)}): leave it out")
    if planes.dtype == np.uint8:
        return planes
    if not np.issubdtype(planes.dtype, np.floating):
        raise GlimpseZooError(f"expected pixels of 8 bits (uint8) or floats in [0, 1], got {planes.dtype}: scale them to one of these")
    bad = int((~np.isfinite(planes)).sum())
    if bad:
        raise GlimpseZooError(f"expected finite pixels, got {bad:,} of {planes.size:,} that are NaN or infinite: replace them first")
    low, high = float(planes.min()), float(planes.max())
    if low < 0 or high > 1:
        remedy = (
            "divide them by 255, or give uint8" if low >= 0 and high <= 255 else "give them before they are normalised, scaled to [0, 1]"
        )
        raise GlimpseZooError(f"expected floats in [0, 1], got pixels from {low:.4g} to {high:.4g}: {remedy}")
    return planes.astype(np.float32)


def each_of(images: AnyImage | Iterable[AnyImage] | object) -> Iterator[AnyImage]:
    """One image, or several: an array [N, H, W, C], a tensor [N, C, H, W], or any other iterable of images."""
    if isinstance(images, str | Path | bytes | Image.Image) or (isinstance(images, np.ndarray | Tensor) and images.ndim != 4):
        yield images
    elif isinstance(images, Iterable) and not isinstance(images, Mapping):
        yield from images
    else:
        raise GlimpseZooError(f"expected one or more images, got {type(images).__name__!r}: give files, arrays, tensors or PIL images")
