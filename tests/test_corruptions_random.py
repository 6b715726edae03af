"""Random corruptions: equal to the published algorithm for the same draws, or with the same statistics at every severity."""

import corruption_references as references
import numpy as np
import pytest
import torch
from corruption_references import as_images, ours, photograph, statistics
from numpy import ndarray
from scipy import ndimage

from glimpsezoo.conditions.corruptions import blurring, draws, filters, frosting, resampling, weather
from glimpsezoo.conditions.corruptions.presets import SEVERITIES, constants
from glimpsezoo.core.noise import Noise

SIDE = 128  # px: the smallest images that use the constants for 224
NOISE = Noise.of(3, torch.arange(2))
SEEDS = {"gaussian_noise": 6, "shot_noise": 6, "impulse_noise": 12, "speckle_noise": 6, "glass_blur": 6, "snow": 30}
MANY = SEEDS | {"glass_blur": 20, "impulse_noise": 40, "snow": 150, "motion_blur": 400, "fog": 400, "spatter": 300}


def assert_alike(found: ndarray, expected: ndarray, clean: ndarray) -> None:
    """Statistics within 5 %; shares of the residual's power within .05; quantiles within 5 % or 3 levels."""
    a, b = statistics(found, clean), statistics(expected, clean)
    for name in ("distortion", "spread"):
        assert a[name] == pytest.approx(b[name], rel=0.05), name
    np.testing.assert_allclose(a["spectrum"], b["spectrum"], atol=0.05)
    np.testing.assert_allclose(a["quantiles"], b["quantiles"], rtol=0.05, atol=3)


def of_peer(name: str, severity: int, levels: ndarray, seeds: int) -> ndarray:
    peer = pytest.importorskip("imagecorruptions")
    np.random.seed(severity)
    if name == "glass_blur":  # takes a new seed for every image unless it is given one
        blur = peer.corruptions.glass_blur
        return np.stack([np.uint8(blur(levels, severity, seed)) for seed in range(seeds)])
    return np.stack([peer.corrupt(levels, severity=severity, corruption_name=name) for _ in range(seeds)])


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("name", SEEDS)
def test_its_statistics_are_those_of_the_published_code(name: str, severity: int) -> None:
    levels = photograph(SIDE, SIDE)
    assert_alike(ours(name, severity, levels, SEEDS[name]), of_peer(name, severity, levels, SEEDS[name]), levels)


@pytest.mark.slow
@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("name", MANY)
def test_with_many_seeds_too(name: str, severity: int) -> None:
    levels = photograph(SIDE, SIDE)
    assert_alike(ours(name, severity, levels, MANY[name]), of_peer(name, severity, levels, MANY[name]), levels)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_spatter_covers_as_much(severity: int) -> None:
    """With few seeds, statistics vary by more than 5 %; the slow test uses all seeds."""
    levels = photograph(SIDE, SIDE)
    found, expected = (statistics(x, levels) for x in (ours("spatter", severity, levels, 24), of_peer("spatter", severity, levels, 24)))
    assert found["distortion"] == pytest.approx(expected["distortion"], rel=0.12)
    np.testing.assert_allclose(found["quantiles"], expected["quantiles"], rtol=0.05, atol=3)


@pytest.mark.parametrize("preset", ["64", "32"])
@pytest.mark.parametrize("severity", SEVERITIES)
def test_noise_at_other_sizes_has_the_published_strength(severity: int, preset: str) -> None:
    grey = np.full((int(preset), int(preset), 3), 100, np.uint8)
    x, seeds = 100 / 255, 40
    expected = {
        "gaussian_noise": constants("gaussian_noise", severity, preset),
        "speckle_noise": x * constants("speckle_noise", severity, preset),
        "shot_noise": (x / constants("shot_noise", severity, preset)) ** 0.5,
    }
    for name, deviation in expected.items():
        assert ours(name, severity, grey, seeds).std() / 255 == pytest.approx(deviation, rel=0.05), name
    hit = ours("impulse_noise", severity, grey, seeds)
    assert (hit == 0).mean() == pytest.approx(constants("impulse_noise", severity, preset) / 2, rel=0.1)
    assert (hit == 255).mean() == pytest.approx(constants("impulse_noise", severity, preset) / 2, rel=0.1)


@pytest.mark.parametrize("photons", [3, 60, 500])
def test_shot_noise_has_poissons_probabilities(photons: int) -> None:
    """Compared with the exact probabilities, rate^k e^-rate / k!, by the logarithm of the gamma function."""
    table = grain_table(photons)
    for level in (0, 1, 100, 255):
        rate = max(level / 255 * photons, 1e-12)
        k = torch.arange(int(rate + 10 * rate**0.5 + 10), dtype=torch.float64)
        expected = (k * np.log(rate) - rate - torch.lgamma(k + 1)).exp().numpy()
        found = np.bincount(table[level], minlength=len(expected))[: len(expected)] / table.shape[1]
        np.testing.assert_allclose(found, expected, atol=1.01 / table.shape[1])


def grain_table(photons: int) -> ndarray:
    from glimpsezoo.conditions.corruptions import grain

    return grain._poisson_quantiles(photons).view(256, -1).numpy()


@pytest.mark.parametrize("delta", [1, 2, 3, 4])
def test_glass_blurs_scan_overwrites_in_the_published_order(delta: int) -> None:
    choices = draws.bits15(NOISE, 0, 33, 40)
    places = np.arange(33 * 40).reshape(33, 40)
    found = blurring.scan_sources(choices, delta)
    for chosen, sources in zip(choices.numpy(), found.numpy(), strict=True):
        np.testing.assert_array_equal(sources.reshape(33, 40), references.scanned(places, chosen, delta))


@pytest.mark.parametrize("angle", [-45.0, -10.0, 0.0, 31.0, -90.0, -135.0])
def test_motion_blur_is_the_published_one_at_every_angle(angle: float) -> None:
    peer = pytest.importorskip("imagecorruptions.corruptions")
    levels = photograph(64, 80)
    found = filters.motion(as_images(levels), 12, 5, torch.tensor([angle]))[0].permute(1, 2, 0) * 255
    np.testing.assert_allclose(found, peer._motion_blur(levels, radius=12, sigma=5, angle=angle), atol=0.01)


def test_motion_blurs_angles_are_uniform(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(filters, "motion", lambda images, radius, sigma, degrees: seen.append(degrees) or images)
    many = Noise.of(0, torch.arange(2000))
    blurring.motion_blur(torch.zeros(2000, 3, 1, 1), 1, "32", many)
    np.testing.assert_allclose(np.sort(seen[0]), np.linspace(-45, 45, 2000), atol=3)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_fog_is_the_published_formula_over_a_plasma_made_point_by_point(severity: int) -> None:
    levels = photograph(40, 50)
    weight, decay = constants("fog", severity, "32")
    found = weather.fog(as_images(levels, 2), severity, "32", NOISE)
    for image, chosen in zip(found, draws.uniform(NOISE, 0, 64 * 64), strict=True):
        layer = references.plasma(chosen.tolist(), 64, decay)[:40, :50, None]
        x = levels / 255
        np.testing.assert_allclose(image.permute(1, 2, 0), (x + weight * layer) * x.max() / (x.max() + weight), atol=1e-4)


class Given:
    """Replaces a numpy generator and returns the draws of the images' own source, from U(0, 1), in its order."""

    def __init__(self, *values: torch.Tensor) -> None:
        self.values = list(values)

    def uniform(self, low: float, high: float, shape: tuple[int, ...]) -> ndarray:
        return self.values.pop(0).double().reshape(shape).numpy() * (high - low) + low


@pytest.mark.parametrize(("side", "preset"), [(128, "224"), (64, "64"), (33, "32")])
@pytest.mark.parametrize("severity", SEVERITIES)
def test_elastic_transform_is_the_published_one_for_the_same_draws(severity: int, side: int, preset: str) -> None:
    levels = photograph(side, side)
    found = resampling.elastic_transform(as_images(levels, 2), severity, preset, NOISE)
    fields = draws.uniform(NOISE, 1, 2, side, side)
    for k, image in enumerate(found):
        given = Given(NOISE.uniform(0, 6)[k], fields[k, 0], fields[k, 1])
        expected = references.elastic_transform(levels, constants("elastic_transform", severity, preset), given)  # type: ignore[arg-type]
        apart = np.abs(references.truncated(image.permute(1, 2, 0).numpy() + 1e-6).astype(int) - expected)
        assert apart.mean() < 0.05
        assert (apart > 1).mean() < 0.001


@pytest.mark.parametrize("sigma", [0.4, 2.4, 19.2, 170.0])
def test_displacements_are_smoothed_as_scipy_does(sigma: float) -> None:
    fields = torch.rand(1, 2, 64, 50) * 2 - 1
    expected = [ndimage.gaussian_filter(field.double().numpy(), sigma, mode="reflect", truncate=3) for field in fields[0]]
    np.testing.assert_allclose(resampling.smoothed(fields, sigma)[0], expected, atol=2e-6)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_frost_adds_one_of_five_windows_wherever_it_is_cut(severity: int) -> None:
    levels = photograph(SIDE, SIDE)
    weights = constants("frost", severity, "224")
    windows = frosting._windows("224", SIDE, SIDE, frosting.made_with())
    many = Noise.of(1, torch.arange(50))
    found = frosting.frost(as_images(levels, 50), severity, "224", many).permute(0, 2, 3, 1).numpy()
    for image, (which, down, across) in zip(found, many.uniform(0, 3).tolist(), strict=True):
        window = windows[int(5 * which)].permute(1, 2, 0).numpy()
        top, left = int((window.shape[0] - SIDE) * down), int((window.shape[1] - SIDE) * across)
        expected = (weights[0] * levels + weights[1] * window[top : top + SIDE, left : left + SIDE]) / 255
        np.testing.assert_allclose(image, expected, atol=1e-5)
