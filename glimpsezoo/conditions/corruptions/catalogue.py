"""Every built-in corruption: the 15 of the benchmark in their published order, and the 4 extras. Imports nothing heavy."""

from glimpsezoo.specs import CorruptionSpec

_BY_CHANNEL = ("contrast", "defocus_blur", "elastic_transform", "gaussian_blur", "glass_blur", "motion_blur", "zoom_blur")


def _spec(module: str, name: str, description: str, *, benchmark: bool = True) -> CorruptionSpec:
    return CorruptionSpec(
        name=name,
        description=description,
        corrupt=f"glimpsezoo.conditions.corruptions.{module}:{name}",
        benchmark=benchmark,
        by_channel=name in _BY_CHANNEL,
    )


BENCHMARK = (
    _spec("grain", "gaussian_noise", "Gaussian noise on every value."),
    _spec("grain", "shot_noise", "Poisson noise: few photons."),
    _spec("grain", "impulse_noise", "Salt and pepper on a share of the values."),
    _spec("blurring", "defocus_blur", "Out of focus: convolution with a disk."),
    _spec("blurring", "glass_blur", "Frosted glass: pixels shuffled locally between two Gaussian blurs."),
    _spec("blurring", "motion_blur", "Motion of the camera along a line."),
    _spec("blurring", "zoom_blur", "Motion of the camera towards the scene."),
    _spec("weather", "snow", "Falling snow over a whitened scene."),
    _spec("frosting", "frost", "The view through a frosted window."),
    _spec("weather", "fog", "A plasma cloud in front of the scene."),
    _spec("colour", "brightness", "A raised HSV value."),
    _spec("colour", "contrast", "Lowered contrast, about each channel's mean."),
    _spec("resampling", "elastic_transform", "A random affine map, then small random displacements."),
    _spec("resampling", "pixelate", "Shrunk by a box filter and enlarged again."),
    _spec("resampling", "jpeg_compression", "JPEG at a low quality."),
)
EXTRAS = (
    _spec("grain", "speckle_noise", "Gaussian noise in proportion to the value.", benchmark=False),
    _spec("blurring", "gaussian_blur", "Gaussian blur.", benchmark=False),
    _spec("spattering", "spatter", "Drops of water or mud on the lens.", benchmark=False),
    _spec("colour", "saturate", "Lowered or raised HSV saturation.", benchmark=False),
)
CORRUPTIONS: tuple[CorruptionSpec, ...] = BENCHMARK + EXTRAS
