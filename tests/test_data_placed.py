"""Placed digits: the canvas is as in the papers, and a function of (seed, split, digit, placement) alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from data_files import encoded, glyph, mnist, opened, write_parquet

from glimpsezoo.data import BadImageError, ImageData, batches, training_batches
from glimpsezoo.data import mnist as mnist_module
from glimpsezoo.data.placed import Distortion, PlacedDigits, _with_clutter
from glimpsezoo.data.texture import grass

SETS = ["tmnist", "gtmnist", "jittered-mnist", "plain-mnist", "textured-mnist", "noisy-mnist", "translated-mnist", "cluttered-mnist"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small MNIST with 40 train digits, of which the first 10 calibrate, and 12 test digits."""
    monkeypatch.setattr(mnist_module, "VALIDATION", 10)
    return mnist(tmp_path)


def images(data: ImageData) -> torch.Tensor:
    return next(batches(data, 0, len(data), len(data))).images


def test_mnist_is_as_it_is(folder: Path) -> None:
    data = opened("mnist", "test", folder)
    assert len(data) == 12
    expected = torch.from_numpy(np.array(glyph(503))).float() / 255
    assert torch.equal(data[3].image, expected[None])
    assert data[3].label == 3
    assert torch.equal(data.training_example(3, 5).image, data[3].image)


def test_calibration_digits_are_the_first_of_train_and_train_has_the_rest(folder: Path) -> None:
    assert [opened("mnist", "calibration", folder)[k].group for k in range(10)] == list(range(10))
    assert opened("mnist", "train", folder)[0].group == 10
    assert len(opened("mnist", "train", folder)) == 30


@pytest.mark.parametrize(("name", "side"), [("tmnist", 112), ("jittered-mnist", 48), ("plain-mnist", 56), ("translated-mnist", 60)])
def test_a_whole_digit_stands_on_black(folder: Path, name: str, side: int) -> None:
    data = opened(name, "test", folder)
    example = data[4]
    assert example.image.shape == (1, side, side)
    (top, left), (bottom, right) = example.image[0].nonzero().aminmax(dim=0)
    assert (bottom - top, right - left) == (27, 27)  # its marked corners
    expected = torch.from_numpy(np.array(glyph(500 + example.group))).float() / 255
    assert torch.equal(example.image[0, top : bottom + 1, left : right + 1], expected)
    assert float(example.image.sum()) == pytest.approx(float(expected.sum()), rel=1e-5)


def test_every_place_of_the_canvas_is_about_equally_likely(folder: Path) -> None:
    data = opened("jittered-mnist", "test", folder, places=200)
    found = images(data)[:, 0]  # [2400, 48, 48]
    tops = (found.amax(2) > 0).float().argmax(1)
    lefts = (found.amax(1) > 0).float().argmax(1)
    for corner in (tops, lefts):
        counts = np.bincount(corner, minlength=21)
        assert len(counts) == 21  # 48 - 28 + 1
        assert ((counts - len(found) / 21) ** 2 / (len(found) / 21)).sum() < 45.3  # chi squared, 20 degrees of freedom, p = .001
    assert abs(np.corrcoef(tops, lefts)[0, 1]) < 0.05


def test_training_on_mnist_may_shift_digits_and_measuring_does_not(folder: Path) -> None:
    plain, shifted = opened("mnist", "train", folder), opened("mnist", "train", folder, shift=2)
    digit = plain[5].image[0]
    around = torch.nn.functional.pad(digit, (2, 2, 2, 2))
    moved = {(down, right): around[down : down + 28, right : right + 28] for down in range(5) for right in range(5)}
    seen = set()
    for epoch in range(120):
        image = shifted.training_example(5, epoch).image[0]
        assert torch.equal(plain.training_example(5, epoch).image[0], digit)
        seen |= {place for place, expected in moved.items() if torch.equal(image, expected)}
    assert len(seen) > 20  # of the 25
    assert torch.equal(images(opened("mnist", "test", folder, shift=2)), images(opened("mnist", "test", folder)))


def test_training_may_turn_and_stretch_digits_and_measuring_does_not(folder: Path) -> None:
    for name in ("mnist", "tmnist"):
        plain, turned = opened(name, "train", folder), opened(name, "train", folder, rotation=20, zoom=0.2)
        views = [turned.training_example(5, epoch).image for epoch in range(60)]
        assert torch.equal(views[7], opened(name, "train", folder, rotation=20, zoom=0.2).training_example(5, 7).image)
        assert len({view.numpy().tobytes() for view in views}) == 60
        mass = torch.stack(views).sum((1, 2, 3)) / plain[5].image.sum()
        assert mass.min() > 0.6  # .8 x .8
        assert mass.max() < 1.5  # 1.2 x 1.2
        assert mass.std() > 0.05
        assert torch.equal(images(opened(name, "test", folder, rotation=20, zoom=0.2)), images(opened(name, "test", folder)))
        assert opened(name, "test", folder, rotation=20).info.fingerprint == opened(name, "test", folder).info.fingerprint
        assert turned.info.fingerprint != plain.info.fingerprint


def test_noise_may_grow_over_the_first_epochs_of_training_alone(folder: Path) -> None:
    plain, growing = opened("gtmnist", "train", folder), opened("gtmnist", "train", folder, noise_epochs=3)
    deviations = []
    for epoch in (0, 1, 2, 3, 10_000):
        image, bare = (data.training_example(5, epoch).image for data in (growing, opened("tmnist", "train", folder)))
        deviations.append((2 * image[bare == 0].square().mean()).sqrt().item())  # on black, clipping removes half of the noise
    assert torch.allclose(growing.training_example(5, 3).image, plain.training_example(5, 3).image, atol=1e-5)
    assert deviations == pytest.approx([0.075, 0.15, 0.225, 0.3, 0.3], rel=0.05)
    assert torch.equal(images(opened("gtmnist", "test", folder, noise_epochs=3)), images(opened("gtmnist", "test", folder)))
    for split, same in (("train", False), ("test", True)):
        fingerprints = {opened("gtmnist", split, folder, noise_epochs=epochs).info.fingerprint for epochs in (0, 3)}
        assert (len(fingerprints) == 1) is same


def test_a_digit_is_turned_by_the_angle_and_stretched_by_the_factors_that_are_drawn() -> None:
    bar = torch.zeros(1, 29, 29, dtype=torch.uint8)
    bar[0, 4:25, 13:16] = 200  # upright, 21 x 3 px
    whole = torch.tensor([[1.0, 0.5, 0.5]])  # the most, and no stretching
    turned = Distortion(rotation=90)(bar, whole)[0]
    assert torch.allclose(turned, bar[0].T.float(), atol=0.1)
    slanted = Distortion(rotation=45)(bar, whole)[0]
    assert slanted[7, 21] + slanted[21, 7] > 390 or slanted[7, 7] + slanted[21, 21] > 390
    assert slanted[7, 21] * slanted[7, 7] == 0
    wide = Distortion(zoom=1 / 3)(bar, torch.tensor([[0.5, 1.0, 0.0]]))[0]  # a third wider, a third lower
    assert wide[14].sum() / 200 == pytest.approx(4, abs=0.1)
    assert wide[:, 14].sum() / 200 == pytest.approx(14, abs=0.1)


def test_jittered_mnist_has_ten_fixed_places_to_train_on_and_three_to_measure(folder: Path) -> None:
    train, test = opened("jittered-mnist", "train", folder), opened("jittered-mnist", "test", folder)
    assert (len(train), len(test)) == (30 * 10, 12 * 3)
    ten = {train.training_example(k, 0).image.numpy().tobytes() for k in range(10)}
    assert len(ten) > 7  # of 441 places, two may agree
    assert ten == {train.training_example(k, 9).image.numpy().tobytes() for k in range(10)}


@pytest.mark.parametrize("name", SETS)
def test_an_image_is_a_function_of_seed_split_digit_and_placement(folder: Path, name: str) -> None:
    data = opened(name, "test", folder, places=3)
    together = images(data)
    for k in (0, 7, 35):
        assert torch.equal(together[k], opened(name, "test", folder, places=3)[k].image)
    assert torch.equal(together[::3], images(opened(name, "test", folder, places=1)))  # more placements do not change the first
    assert not torch.equal(together[0], together[1])
    other = opened(name, "test", folder, places=3, seed=1)
    assert not torch.equal(images(other), together)
    assert other.info.fingerprint != data.info.fingerprint


@pytest.mark.parametrize("name", SETS)
def test_splits_do_not_share_their_draws(folder: Path, name: str) -> None:
    calibration, test = opened(name, "calibration", folder), opened(name, "test", folder)
    assert isinstance(calibration, PlacedDigits)
    assert isinstance(test, PlacedDigits)
    first = torch.tensor([0])
    of_calibration = calibration.draw(first, first)
    test.glyphs = calibration.glyphs  # the same digits, drawn as the test split would
    assert not torch.equal(of_calibration, test.draw(first, first))


@pytest.mark.parametrize("name", ["tmnist", "gtmnist", "textured-mnist", "noisy-mnist", "cluttered-mnist"])
def test_training_draws_anew_each_epoch_and_the_same_in_a_repeat(folder: Path, name: str) -> None:
    data = opened(name, "train", folder)
    first, again, later = (torch.cat([b.images for b in training_batches(data, epoch, 0, 8)]) for epoch in (0, 0, 1))
    assert torch.equal(first, again)
    shown = {image.numpy().tobytes() for image in first}
    assert not shown & {image.numpy().tobytes() for image in later}
    assert not shown & {image.numpy().tobytes() for image in images(data)}


def test_gaussian_noise_has_deviation_0_3_and_is_clipped(folder: Path) -> None:
    clean, noisy = images(opened("tmnist", "test", folder)), images(opened("gtmnist", "test", folder))
    assert (float(noisy.min()), float(noisy.max())) == (0.0, 1.0)
    at_half = (clean > 0.45) & (clean < 0.55)  # where clipping is symmetric and rare
    difference = (noisy - clean)[at_half]
    assert len(difference) > 300
    assert float(difference.mean()) == pytest.approx(0, abs=0.06)
    on_black = noisy[clean == 0]
    assert float((on_black == 0).double().mean()) == pytest.approx(0.5, abs=0.01)
    assert float((on_black > 0.3).double().mean()) == pytest.approx(0.1587, abs=0.005)  # beyond one standard deviation
    assert float((on_black > 0.6).double().mean()) == pytest.approx(0.0228, abs=0.002)  # beyond two


def test_salt_and_pepper_hit_a_tenth_of_the_pixels_half_each(folder: Path) -> None:
    clean, noisy = images(opened("plain-mnist", "test", folder)), images(opened("noisy-mnist", "test", folder))
    on_black = clean.eq(0)
    white = (noisy.eq(1) & on_black).sum((1, 2, 3)).double() / on_black.sum((1, 2, 3))
    assert float(white.mean()) == pytest.approx(0.05, abs=0.004)
    on_digit = clean.gt(0) & clean.lt(1)
    black = (noisy.eq(0) & on_digit).sum().double() / on_digit.sum()
    assert float(black) == pytest.approx(0.05, abs=0.01)
    changed = noisy.ne(clean)
    assert int(changed.sum((1, 2, 3)).max()) <= 314  # 10 % of 56 x 56, less where black fell on black
    assert bool((noisy[changed].eq(0) | noisy[changed].eq(1)).all())


def test_texture_lies_behind_the_digit_and_comes_from_one_field(folder: Path) -> None:
    clean, textured = images(opened("plain-mnist", "test", folder)), images(opened("textured-mnist", "test", folder))
    assert torch.equal(textured[clean == 1], clean[clean == 1])
    behind = textured[0, 0].clone()
    behind[clean[0, 0] > 0] = -1
    field = grass(0).float() / 255
    wide = torch.cat([torch.cat([field, field[:, :56]], 1), torch.cat([field[:56], field[:56, :56]], 1)])  # it repeats at its edges
    windows = wide.unfold(0, 56, 1).unfold(1, 56, 1)  # [513, 513, 56, 56], a view
    match = torch.ones(windows.shape[:2], dtype=torch.bool)
    for y, x in (behind >= 0).nonzero()[::40].tolist():
        match &= (windows[:, :, y, x] - behind[y, x]).abs() < 1e-6
    assert int(match.sum()) >= 1


@pytest.mark.parametrize(("side", "pieces"), [(60, 4), (100, 8)])
def test_clutter_is_cut_from_other_digits_of_the_split_summed_and_clipped(folder: Path, side: int, pieces: int) -> None:
    clean, cluttered = (opened(name, "calibration", folder, size=side) for name in ("translated-mnist", "cluttered-mnist"))
    assert cluttered.task.image_size == (side, side)
    assert isinstance(cluttered, PlacedDigits)
    assert float(images(cluttered).max()) == 1
    added = images(cluttered) - images(clean)
    assert float(added.min()) == 0
    assert int((added[:, 0] > 0).sum((1, 2)).max()) <= pieces * 64
    flat = torch.full((2, 28, 28), 100, dtype=torch.uint8)  # the split has two digits, so each is cluttered with the other
    flat[1] = 51
    draws = torch.rand(400, 5 * pieces, generator=torch.Generator().manual_seed(0))
    filled = _with_clutter(torch.zeros(400, side, side), flat, torch.zeros(400, dtype=torch.long), draws)
    covered = (filled * 5).round()  # how many pieces lie on each pixel
    assert torch.allclose(filled, covered / 5, atol=1e-6)
    whole = covered.sum((1, 2))[covered.amax((1, 2)) < 5]  # without those that were clipped
    assert whole.unique().tolist() == [pieces * 64]
    assert bool(covered.amax((0, 1)).all())  # every column is reached
    assert bool(covered.amax((0, 2)).all())  # and every row


def test_the_field_is_a_function_of_its_seed_and_darker_than_a_digit() -> None:
    grass.cache_clear()
    one = grass(0)
    grass.cache_clear()
    assert torch.equal(one, grass(0))
    assert not torch.equal(one, grass(1))
    assert 20 <= int(one.min()) < int(one.max()) <= 0.7 * 255
    assert float(one.float().std()) > 20  # texture, not plain grey


@pytest.mark.parametrize("name", ["plain-mnist", "textured-mnist", "noisy-mnist"])
@pytest.mark.parametrize("size", [14, 28])
def test_smaller_sizes_are_means_over_areas_of_the_large_image(folder: Path, name: str, size: int) -> None:
    large, small = opened(name, "test", folder), opened(name, "test", folder, size=size)
    assert small.task.image_size == (size, size)
    factor = 56 // size
    expected = images(large).numpy().reshape(12, 1, size, factor, size, factor).mean((3, 5))
    np.testing.assert_allclose(images(small).numpy(), expected, atol=1e-6)
    assert small.info.fingerprint != large.info.fingerprint


def test_a_bad_digit_is_named_by_its_row_and_can_be_skipped(tmp_path: Path) -> None:
    content = [encoded(glyph(k)) for k in range(20)]
    content[13] = content[13][:40]
    names = [str(digit) for digit in range(10)]
    write_parquet(tmp_path / "mnist" / "test-00000-of-00001.parquet", content, [k % 10 for k in range(20)], names)
    data = opened("tmnist", "test", tmp_path, places=2)
    with pytest.raises(BadImageError, match=r"tmnist, test split: row 13 of test-00000"):
        data[26]
    found = next(batches(data, 0, 40, 40, on_bad_image="skip"))
    assert len(found.labels) == 38
    assert len(found.skipped) == 2
