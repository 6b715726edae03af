"""A corruption as a condition: randomness per image, 8 bits, grey and colour, caching, and the implementation's name."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from corruption_references import SPECS, apply, as_images, photograph
from PIL import Image
from torch import Tensor

from glimpsezoo.conditions.base import BrokenConditionError, Remembered
from glimpsezoo.conditions.corruptions import condition as conditions
from glimpsezoo.conditions.corruptions import frosting
from glimpsezoo.conditions.corruptions.condition import Corruption
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.hashing import module_hash
from glimpsezoo.specs import CorruptionSpec, Provenance

HEIGHT, WIDTH = 45, 61  # not a multiple of a processor's vector length


def images_of(count: int, height: int = HEIGHT, width: int = WIDTH) -> Tensor:
    """Different images."""
    shifts = [torch.from_numpy(np.roll(photograph(height, width), 5 * k, 1).copy()) for k in range(count)]
    return torch.stack(shifts).permute(0, 3, 1, 2).float() / 255


def of(name: str, severity: int = 3, size: tuple[int, int] = (HEIGHT, WIDTH), **how: Any) -> Corruption:
    return Corruption(SPECS[name], severity, size, **how)


@pytest.mark.parametrize("name", SPECS)
def test_no_batch_order_piece_or_number_of_threads_shows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for severity in (1, 3, 5):
        images, ids = images_of(7), torch.tensor([5, 900, 7, 1 << 40, 3, 2, 1])
        corruption = of(name, severity)
        whole = apply(corruption, images, ids)
        order = torch.tensor([3, 0, 6])
        torch.manual_seed(severity)
        assert torch.equal(apply(corruption, images[order], ids[order]), whole[order])
        assert torch.equal(apply(corruption, images[4:5], ids[4:5]), whole[4:5])
        with monkeypatch.context() as patch:
            patch.setattr(conditions, "_PIECE", 3 * HEIGHT * WIDTH * 2)  # two images at once
            assert torch.equal(apply(corruption, images, ids), whole)
        threads = torch.get_num_threads()
        torch.set_num_threads(3)
        try:
            assert torch.equal(apply(corruption, images, ids), whole)
        finally:
            torch.set_num_threads(threads)


@pytest.mark.parametrize("name", ["gaussian_noise", "glass_blur", "elastic_transform", "snow"])
def test_threads_do_not_show_in_large_images(name: str) -> None:
    images, threads, found = images_of(2, 160, 224), torch.get_num_threads(), []
    for count in (1, 4):
        torch.set_num_threads(count)
        found.append(apply(of(name, 2, (160, 224)), images))
    torch.set_num_threads(threads)
    assert torch.equal(*found)


RANDOM = [name for name in SPECS if name.endswith("noise")] + ["glass_blur", "motion_blur", "snow", "frost", "fog", "elastic_transform"]


@pytest.mark.parametrize("name", [*RANDOM, "spatter"])
def test_seed_and_id_change_what_is_random(name: str) -> None:
    images = images_of(1, 64, 64).expand(2, -1, -1, -1)
    found = apply(of(name, 4, (64, 64)), images)
    assert not torch.equal(found[0], found[1])
    assert not torch.equal(apply(of(name, 4, (64, 64), seed=1), images)[0], found[0])


@pytest.mark.parametrize("name", SPECS)
def test_results_are_of_8_bits_and_the_images_are_left_alone(name: str) -> None:
    images = images_of(2)
    before = images.clone()
    found = apply(of(name, 5), images)
    assert torch.equal(images, before)
    assert found.dtype == torch.float32
    levels = (found * 255).round()
    assert torch.equal(levels / 255, found)
    assert 0 <= found.min() <= found.max() <= 1
    assert not torch.equal(found, images)


@pytest.mark.parametrize("name", SPECS)
def test_grey_images_are_corrupted_as_rgb_and_turned_back_as_pillow_does(name: str) -> None:
    grey = images_of(2)[:, :1]
    found = apply(of(name), grey)
    colour = (apply(of(name), grey.expand(-1, 3, -1, -1)) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    expected = np.stack([np.array(Image.fromarray(image).convert("L")) for image in colour])
    np.testing.assert_array_equal((found[:, 0] * 255).round().byte().numpy(), expected)


def test_a_batch_without_images_stays_one() -> None:
    assert apply(of("fog"), torch.zeros(0, 1, HEIGHT, WIDTH)).shape == (0, 1, HEIGHT, WIDTH)


@pytest.mark.parametrize("name", ["snow", "frost", "fog", "zoom_blur", "elastic_transform", "spatter", "glass_blur"])
@pytest.mark.parametrize("size", [(32, 200), (200, 48), (331, 640)])
def test_every_shape_of_image_will_do(name: str, size: tuple[int, int]) -> None:
    found = apply(of(name, 3, size), as_images(photograph(*size)))
    assert found.shape == (1, 3, *size)
    assert found.isfinite().all()


def test_what_is_kept_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    corruption = of("shot_noise")
    remembered, inner = Remembered(corruption), corruption.corrupt
    monkeypatch.setattr(corruption, "corrupt", lambda images, *others: made.append(len(images)) or inner(images, *others))
    images = images_of(3)
    plain, first = apply(corruption, images), apply(remembered, images)
    assert torch.equal(first, plain)
    first.zero_()  # a caller may change its images without an effect
    assert torch.equal(apply(remembered, images), plain)
    assert made == [3, 3]
    assert torch.equal(apply(remembered, images[:2]), plain[:2])
    assert made == [3, 3, 2]
    remembered.forget()
    assert torch.equal(apply(remembered, images), plain)
    assert made == [3, 3, 2, 3]
    assert (remembered.name, remembered.parameters, remembered.kind) == (corruption.name, corruption.parameters, Corruption)
    assert remembered.implementation == corruption.implementation


def test_identity() -> None:
    corruption = of("motion_blur", 2, seed=9)
    assert corruption.name == "motion_blur"
    assert corruption.parameters == {"severity": 2, "preset": "32", "seed": 9}
    assert corruption.implementation.startswith("glimpsezoo 0.")
    assert "Pillow" in of("jpeg_compression").implementation


def test_frost_says_which_windows_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    images = images_of(3, 128, 128)
    installed = frosting._folder() is not None
    assert ("photographs of imagecorruptions-imaug 1." in of("frost").implementation) == installed
    before = apply(of("frost", 3, (128, 128)), images)
    monkeypatch.setattr(frosting, "_DISTRIBUTION", "no-such-distribution")
    drawn = of("frost", 3, (128, 128))
    assert drawn.implementation.endswith("frost texture of its own")
    found = apply(drawn, images)
    assert torch.equal(found, before) != installed
    assert found.mean() > images.mean() + 0.1
    assert np.array_equal(frosting.drawn(1), frosting.drawn(1))
    assert not np.array_equal(frosting.drawn(1), frosting.drawn(2))


@pytest.mark.parametrize("severity", [0, 6, -1])
def test_another_severity_is_refused(severity: int) -> None:
    with pytest.raises(GlimpseZooError, match=f"severity from 1 to 5 for fog, got {severity}"):
        of("fog", severity)


def test_what_cannot_be_corrupted_is_refused() -> None:
    with pytest.raises(GlimpseZooError, match="32 px or more, got 28 x 300"):
        of("fog", 1, (28, 300))
    with pytest.raises(GlimpseZooError, match="grey or RGB images, got 2 channels"):
        apply(of("fog"), torch.zeros(1, 2, HEIGHT, WIDTH))


PLUGIN = "def darker(images, severity, preset, noise):\n    return images * (1 - {share} * severity)\n"


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the corruption of a plugin with `share` in its source."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(share: str) -> Corruption:
        sys.modules.pop("made_up_corruptions", None)
        module_hash.cache_clear()
        (tmp_path / "made_up_corruptions.py").write_text(PLUGIN.format(share=share))
        provenance = Provenance("mine", "glimpsezoo-mine", "2.1")
        spec = CorruptionSpec(name="darker", description="Darker.", corrupt="made_up_corruptions:darker", provenance=provenance)
        return Corruption(spec, 2, (HEIGHT, WIDTH))

    yield make
    sys.modules.pop("made_up_corruptions", None)


def test_a_plugins_corruption_is_known_by_its_version_and_source(plugin: Any) -> None:
    first = plugin("0.1")
    images = images_of(2)
    assert torch.allclose(apply(first, images), images * 0.8, atol=1 / 255)
    assert first.implementation.startswith("glimpsezoo-mine 2.1, source ")
    assert plugin("0.1").implementation == first.implementation
    assert plugin("0.20").implementation != first.implementation


def test_a_plugin_that_changes_the_size_is_told() -> None:
    corruption = of("fog")
    corruption.corrupt = lambda images, *others: images[:, :, 1:]
    with pytest.raises(BrokenConditionError, match=r"\(1, 3, 45, 61\) from fog, got \(1, 3, 44, 61\)"):
        apply(corruption, images_of(1))
