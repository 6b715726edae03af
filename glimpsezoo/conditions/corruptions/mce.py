"""Mean corruption error: errors over the benchmark's 15 corruptions, relative to a baseline's."""

from collections.abc import Mapping, Sequence

from glimpsezoo.conditions.corruptions.catalogue import BENCHMARK
from glimpsezoo.conditions.corruptions.presets import SEVERITIES
from glimpsezoo.errors import GlimpseZooError

# AlexNet's mean error over the five severities of each corruption, on the 1000 classes of ImageNet-C at 224 px (Hendrycks & Dietterich).
ALEXNET: Mapping[str, float] = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}


def alexnet_applies(classes: int, image_size: tuple[int, int]) -> bool:
    """Whether AlexNet's published errors apply: they are for 1000 classes at 224 px."""
    return classes == 1000 and tuple(image_size) == (224, 224)


def mean_errors(errors: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The mean over the five severities of each of the 15 corruptions: what a baseline run gives to `mce`. Others are left out.

    Raises `GlimpseZooError` where a corruption or a severity is missing.
    """
    means = {}
    for spec in BENCHMARK:
        found = errors.get(spec.name, ())
        if len(found) != len(SEVERITIES):
            got = f"{len(found)} errors of {spec.name}"
            raise GlimpseZooError(f"mCE expects errors of all 15 corruptions at severities 1 to 5, got {got}: measure them all")
        means[spec.name] = sum(found) / len(found)
    return means


def mce(errors: Mapping[str, Sequence[float]], baseline: Mapping[str, float]) -> float:
    """100 x the mean over the 15 corruptions of (sum of the errors over the severities) / (the same sum for the baseline).

    errors: corruption -> error, a share in [0, 1], at severities 1 to 5. baseline: corruption -> mean error over the severities.
    Raises `GlimpseZooError` where something is missing, and for a baseline without errors, for which the ratio is undefined.

    >>> mce({name: [error] * 5 for name, error in ALEXNET.items()}, ALEXNET)
    100.0
    """
    ratios = []
    for name, error in mean_errors(errors).items():
        if not baseline.get(name, 0) > 0:
            got = f"{baseline[name]:g}" if name in baseline else "none"
            raise GlimpseZooError(f"mCE expects a baseline whose error under {name} is above 0, got {got}: choose another baseline")
        ratios.append(error / baseline[name])
    return 100 * sum(ratios) / len(ratios)
