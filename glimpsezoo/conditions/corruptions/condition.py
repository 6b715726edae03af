"""A corruption at a severity, as a condition."""

import zlib
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import PIL
import torch
from jaxtyping import Float, Int
from torch import Tensor

from glimpsezoo.conditions.base import BrokenConditionError, Condition
from glimpsezoo.conditions.corruptions.frosting import frost, made_with
from glimpsezoo.conditions.corruptions.presets import SEVERITIES, preset_for
from glimpsezoo.conditions.corruptions.resampling import jpeg_compression
from glimpsezoo.core.noise import Noise
from glimpsezoo.core.protocol import GlimpseModel
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.hashing import module_hash
from glimpsezoo.specs import CorruptionSpec, load_string

Corrupt = Callable[[Tensor, int, str, Noise], Tensor]


def _codecs() -> str:
    return f"Pillow {PIL.__version__}, simplejpeg {version('simplejpeg')}"


_OTHERS: dict[Corrupt, Callable[[], str]] = {frost: made_with, jpeg_compression: _codecs}
_PIECE = 1 << 19  # values corrupted at once on a CPU, few enough for its cache
_PIECE_GPU = 1 << 25
_ROUNDING = 2**-10  # of a level: float32 may fall short of a whole level by less


class Corruption(Condition):
    """The corruption of `spec` for images of `image_size` (height, width) at a severity from 1 to 5.

    Randomness is a function of (seed, corruption, severity, image id).
    Raises `GlimpseZooError` for another severity and for images below 32 px.
    """

    def __init__(self, spec: CorruptionSpec, severity: int, image_size: tuple[int, int], seed: int = 0) -> None:
        if severity not in SEVERITIES:
            raise GlimpseZooError(f"expected a severity from 1 to 5 for {spec.name}, got {severity}")
        self.name, self.severity, self.seed = spec.name, severity, seed
        self.preset = preset_for(*image_size)
        self.corrupt: Corrupt = load_string(spec.corrupt)
        self.by_channel = spec.by_channel
        self.implementation = _implementation(spec, self.corrupt)

    @property
    def parameters(self) -> dict[str, Any]:
        return {"severity": self.severity, "preset": self.preset, "seed": self.seed}

    def apply(
        self, images: Float[Tensor, "B C H W"], labels: Int[Tensor, "B"], ids: Int[Tensor, "B"], model: GlimpseModel[Any]
    ) -> Float[Tensor, "B C H W"]:
        """Images of 8 bits, in [0, 1]. Grey images are corrupted as RGB and converted back."""
        return self._levels(images, ids).div_(255)

    @torch.no_grad()
    def _levels(self, images: Float[Tensor, "B C H W"], ids: Int[Tensor, "B"]) -> Float[Tensor, "B C H W"]:
        """The corrupted images in whole numbers 0..255, computed in pieces: images do not depend on each other."""
        if images.shape[1] not in (1, 3):
            raise GlimpseZooError(f"corruptions expect grey or RGB images, got {images.shape[1]} channels")
        own = zlib.crc32(self.name.encode())
        noise = Noise.of(self.seed, ids.to(images.device)).fork(own).fork(self.severity)
        most = (_PIECE if images.device.type == "cpu" else _PIECE_GPU) // (3 * images.shape[2] * images.shape[3])
        levels, size = torch.empty_like(images), max(1, most)
        for start in range(0, len(images), size):
            piece = slice(start, start + size)
            self._fill(levels[piece], images[piece], Noise(noise.keys[piece]))
        return levels

    def _fill(self, levels: Float[Tensor, "b C H W"], images: Float[Tensor, "b C H W"], noise: Noise) -> None:
        """Write the corrupted images into `levels`. A corruption that returns uint8 is copied without rounding."""
        grey = images.shape[1] == 1 and not self.by_channel
        rgb = images.expand(-1, 3, -1, -1).contiguous() if grey else images.contiguous()
        corrupted = self.corrupt(rgb, self.severity, self.preset, noise)
        if corrupted.shape != rgb.shape:
            raise BrokenConditionError(f"expected images {tuple(rgb.shape)} from {self.name}, got {tuple(corrupted.shape)}")
        colour = torch.empty_like(rgb) if grey else levels
        if corrupted.dtype == torch.uint8:
            colour.copy_(corrupted)
        else:
            torch.clamp(corrupted, 0, 1, out=colour).mul_(255).add_(_ROUNDING).floor_()  # truncated, like a stored image
        if grey:
            levels.copy_(_grey(colour))


def _grey(levels: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b 1 H W"]:
    """Pillow's conversion to L: (19595 R + 38470 G + 7471 B + 2^15) / 2^16, rounded down. Exact: no number exceeds 2^24."""
    red, green, blue = levels.split(1, 1)
    return ((19595 * red + 38470 * green + 7471 * blue + (1 << 15)) / (1 << 16)).floor()


def _implementation(spec: CorruptionSpec, corrupt: Corrupt) -> str:
    """What computes the corruption, with its version. This package's source is not included: it is part of every unit's id anyway."""
    module = getattr(corrupt, "__module__", None) or type(corrupt).__module__
    package = module.partition(".")[0]
    own = package == "glimpsezoo"
    parts = [str(spec.provenance) if spec.provenance else f"glimpsezoo {version('glimpsezoo')}" if own else package]
    if corrupt in _OTHERS:
        parts.append(_OTHERS[corrupt]())
    if not own:
        parts.append(f"source {_source_of(package, module)}")
    return ", ".join(parts)


def _source_of(package: str, module: str) -> str:
    """Hash (16 hex digits) of the source of a package, or of a single-file module."""
    found = module_hash(package) or module_hash(module)
    if found is None:
        raise GlimpseZooError(f"expected a corruption from a source file, got one of {module}, which has none: put it into a module")
    return found[:16]
