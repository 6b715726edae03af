"""The list of corruptions, the preset by size, and the mean corruption error."""

import re
import subprocess
import sys

import pytest

from glimpsezoo.conditions.corruptions.catalogue import BENCHMARK, CORRUPTIONS
from glimpsezoo.conditions.corruptions.mce import ALEXNET, alexnet_applies, mce, mean_errors
from glimpsezoo.conditions.corruptions.presets import CONSTANTS, SMALLEST, preset_for
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.specs import CorruptionSpec, load_string
from glimpsezoo.zoo.plugins import registry

NAMES = [
    *("gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "snow", "frost", "fog"),
    *("brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression"),
    *("speckle_noise", "gaussian_blur", "spatter", "saturate"),
]


PUBLISHED = """
gaussian_noise | .04 .08 .12 .15 .18 |
    .04 .06 .08 .09 .10
shot_noise | 250 100 50 30 15 |
    500 250 100 75 50
impulse_noise | .01 .02 .05 .08 .14 |
    .01 .02 .03 .05 .07
defocus_blur | (.5,.6) (1,.1) (1.5,.1) (2.5,.01) (3,.1) |
    (.3,.4) (.4,.5) (.5,.6) (1,.2) (1.5,.1)
glass_blur | (.1,1,1) (.5,1,1) (.6,1,2) (.7,2,1) (.9,2,2) |
    (.05,1,1) (.25,1,1) (.4,1,1) (.25,1,2) (.4,1,2)
motion_blur | (10,1) (10,1.5) (10,2) (10,2.5) (12,3) |
    (6,1) (6,1.5) (6,2) (8,2) (9,2.5)
zoom_blur | 1.06,.01 1.11,.01 1.16,.01 1.21,.01 1.26,.01 |
    1.06,.01 1.11,.01 1.16,.01 1.21,.01 1.26,.01
snow | (.1,.2,1,.6,8,3,.8) (.1,.2,1,.5,10,4,.8) (.15,.3,1.75,.55,10,4,.7) (.25,.3,2.25,.6,12,6,.65) (.3,.3,1.25,.65,14,12,.6) |
    (.1,.2,1,.6,8,3,.95) (.1,.2,1,.5,10,4,.9) (.15,.3,1.75,.55,10,4,.9) (.25,.3,2.25,.6,12,6,.85) (.3,.3,1.25,.65,14,12,.8)
frost | (1,.3) (.9,.4) (.8,.45) (.75,.5) (.7,.55) |
    (1,.2) (1,.3) (.9,.4) (.85,.4) (.75,.45)
fog | (.4,3) (.7,3) (1,2.5) (1.5,2) (2,1.75) |
    (.2,3) (.5,3) (.75,2.5) (1,2) (1.5,1.75)
brightness | .1 .2 .3 .4 .5 |
    .05 .1 .15 .2 .3
contrast | .4 .3 .2 .1 .05 |
    .75 .5 .4 .3 .15
elastic_transform | 64 x (0,0,.08) (.05,.3,.06) (.1,.08,.06) (.1,.03,.03) (.16,.03,.02) |
    32 x (0,0,.08) (.05,.2,.07) (.08,.06,.06) (.1,.04,.05) (.1,.03,.03)
pixelate | .9 .8 .7 .6 .5 |
    .95 .9 .85 .75 .65
jpeg_compression | 65 58 50 40 25 |
    80 65 58 50 40
speckle_noise | .15 .2 .25 .3 .35 |
    .06 .1 .12 .16 .2
gaussian_blur | .5 .75 1 1.25 1.5 |
    .4 .6 .7 .8 1
spatter | (.62,.1,.7,.7,.6,0) (.65,.1,.8,.7,.6,0) (.65,.3,1,.69,.6,0) (.65,.1,.7,.68,.6,1) (.65,.1,.5,.67,.6,1) |
    (.62,.1,.7,.7,.5,0) (.65,.1,.8,.7,.5,0) (.65,.3,1,.69,.5,0) (.65,.1,.7,.69,.6,1) (.65,.1,.5,.68,.6,1)
saturate | (.3,0) (.1,0) (2,0) (5,.1) (30,.2) |
    (.3,0) (.1,0) (1.5,0) (2,.1) (2.5,.2)
"""  # for 64 and 32 px; other tests compare those for 224 px with the published code


def numbers(text: str) -> list[float]:
    """All numbers of a cell; those after `64 x` are multiples of it."""
    factor, _, rest = text.rpartition(" x ")
    return [float(factor or 1) * float(number) for number in re.findall(r"[0-9.]+", rest)]


@pytest.mark.parametrize("row", PUBLISHED.replace("|\n", "|").strip().splitlines(), ids=lambda row: row.split()[0])
def test_constants_for_small_images_are_the_published_ones(row: str) -> None:
    name, *cells = (cell.strip() for cell in row.split("|"))
    for preset, cell in zip(("64", "32"), cells, strict=True):
        found = [value for level in CONSTANTS[name][preset] for value in (level if isinstance(level, tuple) else (level,))]
        assert found == pytest.approx(numbers(cell)), preset


def test_the_fifteen_stand_in_their_published_order_before_the_extras() -> None:
    assert [spec.name for spec in CORRUPTIONS] == NAMES
    assert [spec.benchmark for spec in CORRUPTIONS] == [True] * 15 + [False] * 4
    assert tuple(ALEXNET) == tuple(spec.name for spec in BENCHMARK)
    assert [registry().find(CorruptionSpec, name).name for name in NAMES] == NAMES
    assert all(callable(load_string(spec.corrupt)) for spec in CORRUPTIONS)


def test_there_are_constants_for_every_size_and_severity() -> None:
    assert set(CONSTANTS) == set(NAMES)
    assert all(tuple(presets) == tuple(SMALLEST) for presets in CONSTANTS.values())
    assert all(len(levels) == 5 for presets in CONSTANTS.values() for levels in presets.values())


@pytest.mark.parametrize(
    ("size", "preset"), [((224, 224), "224"), ((128, 500), "224"), ((500, 127), "64"), ((48, 48), "64"), ((47, 90), "32"), ((32, 32), "32")]
)
def test_the_preset_goes_by_the_smaller_side(size: tuple[int, int], preset: str) -> None:
    assert preset_for(*size) == preset


def test_images_below_32_px_are_refused() -> None:
    with pytest.raises(GlimpseZooError, match="got 31 x 64"):
        preset_for(31, 64)


def test_catalogue_presets_and_mce_load_nothing_heavy() -> None:
    names = ", ".join(f"glimpsezoo.conditions.corruptions.{name}" for name in ("catalogue", "presets", "mce"))
    code = f"import sys, {names}; "
    subprocess.run([sys.executable, "-c", code + "assert not {'torch', 'numpy', 'PIL', 'datasets'} & set(sys.modules)"], check=True)


def test_mce_is_a_mean_of_ratios_of_sums() -> None:
    errors = {name: [0.1, 0.2, 0.3, 0.4, 0.5] for name in NAMES[:15]}
    baseline = dict.fromkeys(NAMES[:15], 0.6)
    assert mce(errors, baseline) == pytest.approx(50)
    assert mce(errors, baseline | {"fog": 0.3}) == pytest.approx(100 * (14 * 0.5 + 1) / 15)
    assert mce(errors | {"spatter": [1.0] * 5}, baseline) == mce(errors, baseline)  # an extra never counts
    assert mce(errors, mean_errors(errors)) == pytest.approx(100)


def test_what_mce_cannot_be_computed_from_is_said() -> None:
    errors = {name: [0.5] * 5 for name in NAMES[:15]}
    without_fog = {name: found for name, found in errors.items() if name != "fog"}
    with pytest.raises(GlimpseZooError, match="got 0 errors of fog"):
        mce(without_fog, ALEXNET)
    with pytest.raises(GlimpseZooError, match="got 4 errors of snow"):
        mce(errors | {"snow": [0.5] * 4}, ALEXNET)
    with pytest.raises(GlimpseZooError, match="error under frost is above 0, got 0:"):
        mce(errors, dict(ALEXNET) | {"frost": 0.0})
    with pytest.raises(GlimpseZooError, match="error under gaussian_noise is above 0, got none"):
        mce(errors, {})


def test_alexnets_errors_hold_for_imagenet_alone() -> None:
    assert alexnet_applies(1000, (224, 224))
    assert not alexnet_applies(100, (224, 224))
    assert not alexnet_applies(1000, (64, 64))
