"""The published constants of every corruption for severities 1 to 5, for images of 224, 64 and 32 px. Imports nothing heavy.

Hendrycks & Dietterich (ICLR 2019): ImageNet-C, Tiny-ImageNet-C and CIFAR-10-C. A comment beside each corruption names the numbers of its
tuples. Lengths are in pixels, values in [0, 1].
"""

from collections.abc import Mapping
from typing import Any

from glimpsezoo.errors import GlimpseZooError

SEVERITIES = (1, 2, 3, 4, 5)
SMALLEST = {"224": 128, "64": 48, "32": 32}  # the smallest side in px for which each preset is used


def preset_for(height: int, width: int) -> str:
    """The preset for images of this size, by the smaller side. Raises `GlimpseZooError` below 32 px.

    >>> preset_for(64, 200)
    '64'
    """
    for preset, least in SMALLEST.items():
        if min(height, width) >= least:
            return preset
    raise GlimpseZooError(
        f"corruptions expect images of 32 px or more, got {height} x {width}: choose larger images (where data have that setting, by --set "
        "data.size=N)"
    )


def constants(name: str, severity: int, preset: str) -> Any:
    """The constants of a corruption at a severity, 1 to 5."""
    return CONSTANTS[name][preset][severity - 1]


def _same(*levels: Any) -> dict[str, tuple[Any, ...]]:
    return dict.fromkeys(SMALLEST, levels)


_ZOOM_64 = ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01))


def _snow_64(mixes: tuple[float, ...]) -> tuple[tuple[float, ...], ...]:
    layers = (
        (0.1, 0.2, 1, 0.6, 8, 3),
        (0.1, 0.2, 1, 0.5, 10, 4),
        (0.15, 0.3, 1.75, 0.55, 10, 4),
        (0.25, 0.3, 2.25, 0.6, 12, 6),
        (0.3, 0.3, 1.25, 0.65, 14, 12),
    )
    return tuple((*layer, mix) for layer, mix in zip(layers, mixes, strict=True))


def _elastic(side: int, *levels: tuple[float, float, float]) -> tuple[tuple[float, ...], ...]:
    """The constants are published as multiples of `side`."""
    return tuple(tuple(side * value for value in level) for level in levels)


CONSTANTS: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "gaussian_noise": {  # standard deviation
        "224": (0.08, 0.12, 0.18, 0.26, 0.38),
        "64": (0.04, 0.08, 0.12, 0.15, 0.18),
        "32": (0.04, 0.06, 0.08, 0.09, 0.10),
    },
    "shot_noise": {  # photons of a white value
        "224": (60, 25, 12, 5, 3),
        "64": (250, 100, 50, 30, 15),
        "32": (500, 250, 100, 75, 50),
    },
    "impulse_noise": {  # share of the values
        "224": (0.03, 0.06, 0.09, 0.17, 0.27),
        "64": (0.01, 0.02, 0.05, 0.08, 0.14),
        "32": (0.01, 0.02, 0.03, 0.05, 0.07),
    },
    "defocus_blur": {  # radius, smoothing
        "224": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
        "64": ((0.5, 0.6), (1, 0.1), (1.5, 0.1), (2.5, 0.01), (3, 0.1)),
        "32": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    },
    "glass_blur": {  # sigma, delta, iterations
        "224": ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
        "64": ((0.1, 1, 1), (0.5, 1, 1), (0.6, 1, 2), (0.7, 2, 1), (0.9, 2, 2)),
        "32": ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    },
    "motion_blur": {  # radius, sigma
        "224": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
        "64": ((10, 1), (10, 1.5), (10, 2), (10, 2.5), (12, 3)),
        "32": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    },
    "zoom_blur": {  # stop, step of the factors from 1
        "224": ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
        "64": _ZOOM_64,
        "32": _ZOOM_64,
    },
    "snow": {  # mean, standard deviation, zoom, threshold, radius, sigma, share of the image in the mix
        "224": (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
        "64": _snow_64((0.8, 0.8, 0.7, 0.65, 0.6)),
        "32": _snow_64((0.95, 0.9, 0.9, 0.85, 0.8)),
    },
    "frost": {  # weight of the image, of the frost
        "224": ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
        "64": ((1, 0.3), (0.9, 0.4), (0.8, 0.45), (0.75, 0.5), (0.7, 0.55)),
        "32": ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
    },
    "fog": {  # weight of the plasma, decay
        "224": ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
        "64": ((0.4, 3), (0.7, 3), (1, 2.5), (1.5, 2), (2, 1.75)),
        "32": ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    },
    "brightness": _same(0.1, 0.2, 0.3, 0.4, 0.5) | {"32": (0.05, 0.1, 0.15, 0.2, 0.3)},  # added to the HSV value
    "contrast": _same(0.4, 0.3, 0.2, 0.1, 0.05) | {"32": (0.75, 0.5, 0.4, 0.3, 0.15)},  # the factor of the contrast
    "elastic_transform": {  # alpha, sigma, distance of the affine map's points
        "224": _elastic(244, (2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)),
        "64": _elastic(64, (0, 0, 0.08), (0.05, 0.3, 0.06), (0.1, 0.08, 0.06), (0.1, 0.03, 0.03), (0.16, 0.03, 0.02)),
        "32": _elastic(32, (0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
    },
    "pixelate": {  # share of the side
        "224": (0.6, 0.5, 0.4, 0.3, 0.25),
        "64": (0.9, 0.8, 0.7, 0.6, 0.5),
        "32": (0.95, 0.9, 0.85, 0.75, 0.65),
    },
    "jpeg_compression": {  # quality
        "224": (25, 18, 15, 10, 7),
        "64": (65, 58, 50, 40, 25),
        "32": (80, 65, 58, 50, 40),
    },
    "speckle_noise": {  # standard deviation at a white value
        "224": (0.15, 0.2, 0.35, 0.45, 0.6),
        "64": (0.15, 0.2, 0.25, 0.3, 0.35),
        "32": (0.06, 0.1, 0.12, 0.16, 0.2),
    },
    "gaussian_blur": {  # sigma
        "224": (1, 2, 3, 4, 6),
        "64": (0.5, 0.75, 1, 1.25, 1.5),
        "32": (0.4, 0.6, 0.7, 0.8, 1),
    },
    "spatter": {  # mean, standard deviation, sigma, threshold, strength, whether mud
        "224": (
            (0.65, 0.3, 4, 0.69, 0.6, 0),
            (0.65, 0.3, 3, 0.68, 0.6, 0),
            (0.65, 0.3, 2, 0.68, 0.5, 0),
            (0.65, 0.3, 1, 0.65, 1.5, 1),
            (0.67, 0.4, 1, 0.65, 1.5, 1),
        ),
        "64": (
            (0.62, 0.1, 0.7, 0.7, 0.6, 0),
            (0.65, 0.1, 0.8, 0.7, 0.6, 0),
            (0.65, 0.3, 1, 0.69, 0.6, 0),
            (0.65, 0.1, 0.7, 0.68, 0.6, 1),
            (0.65, 0.1, 0.5, 0.67, 0.6, 1),
        ),
        "32": (
            (0.62, 0.1, 0.7, 0.7, 0.5, 0),
            (0.65, 0.1, 0.8, 0.7, 0.5, 0),
            (0.65, 0.3, 1, 0.69, 0.5, 0),
            (0.65, 0.1, 0.7, 0.69, 0.6, 1),
            (0.65, 0.1, 0.5, 0.68, 0.6, 1),
        ),
    },
    "saturate": {  # factor, summand
        "224": ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
        "64": ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (30, 0.2)),
        "32": ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
    },
}
