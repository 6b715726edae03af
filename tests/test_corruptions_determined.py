"""Deterministic corruptions, compared level by level with the published code's fork and with a second implementation."""

import corruption_references as references
import numpy as np
import pytest
from corruption_references import ours, photograph
from numpy import ndarray

from glimpsezoo.conditions.corruptions.presets import SEVERITIES, constants, preset_for

DETERMINED = ("brightness", "contrast", "defocus_blur", "gaussian_blur", "jpeg_compression", "pixelate", "saturate", "zoom_blur")


def assert_near(found: ndarray, expected: ndarray, name: str) -> None:
    """They differ by at most .75 levels on average, and by more than one level in at most .5 % of the values (JPEG: 5 %)."""
    apart = np.abs(found.astype(int) - expected.astype(int))
    assert apart.mean() <= 0.75, f"{apart.mean():.3f} levels"
    share = (apart > 1).mean()
    assert share <= (0.05 if name == "jpeg_compression" else 0.005), f"{share:.2%} by more than one level"


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("name", DETERMINED)
def test_at_224_px_it_is_what_the_published_code_gives(name: str, severity: int) -> None:
    peer = pytest.importorskip("imagecorruptions")
    levels = photograph(224, 224)
    assert_near(ours(name, severity, levels)[0], peer.corrupt(levels, severity=severity, corruption_name=name), name)


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("name", DETERMINED)
@pytest.mark.parametrize(("height", "width"), [(33, 47), (64, 50)])
def test_small_images_that_are_not_square_are_what_a_second_writing_gives(name: str, severity: int, height: int, width: int) -> None:
    levels = photograph(height, width, "flower")
    values = constants(name, severity, preset_for(height, width))
    assert_near(ours(name, severity, levels)[0], getattr(references, name)(levels, values), name)


@pytest.mark.parametrize("name", ["pixelate", "jpeg_compression"])
def test_what_pillow_defines_is_exact(name: str) -> None:
    for height, width in ((45, 47), (224, 224), (64, 61)):
        levels = photograph(height, width)
        for severity in SEVERITIES:
            expected = getattr(references, name)(levels, constants(name, severity, preset_for(height, width)))
            np.testing.assert_array_equal(ours(name, severity, levels)[0], expected)


def test_black_and_grey_pixels_have_a_hue_of_red_as_they_do_in_hsv() -> None:
    levels = np.zeros((32, 32, 3), np.uint8)
    levels[:, 16:] = 200
    for name in ("brightness", "saturate"):
        assert_near(ours(name, 5, levels)[0], getattr(references, name)(levels, constants(name, 5, "32")), name)
