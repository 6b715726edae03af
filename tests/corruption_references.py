"""A second implementation of corruptions, per image, with numpy, scipy and Pillow, and statistics to compare random ones.

Images are [H, W, 3] levels 0..255. Constants are those of the published code, repeated here where a test needs them.
"""

import colorsys
import io
import math
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from numpy import ndarray
from PIL import Image
from scipy import ndimage
from sklearn.datasets import load_sample_image
from toy_evaluation import model_of
from toy_models import Peek

from glimpsezoo.conditions.corruptions.catalogue import CORRUPTIONS
from glimpsezoo.conditions.corruptions.condition import Corruption

SPECS = {spec.name: spec for spec in CORRUPTIONS}


@cache
def photograph(height: int, width: int, name: str = "china") -> ndarray:
    """A part of a photograph that ships with scikit-learn, [height, width, 3]."""
    right, bottom = 60 + 352 * width // max(height, width), 60 + 352 * height // max(height, width)
    whole = Image.fromarray(load_sample_image(f"{name}.jpg")).crop((60, 60, right, bottom))
    return np.array(whole.resize((width, height), Image.Resampling.BILINEAR))


def as_images(levels: ndarray, count: int = 1) -> torch.Tensor:
    """The same image `count` times, [count, 3, H, W] in [0, 1]."""
    return (torch.from_numpy(levels.copy()).permute(2, 0, 1).float() / 255).expand(count, -1, -1, -1).contiguous()


def apply(condition: Corruption, images: torch.Tensor, ids: torch.Tensor | None = None) -> torch.Tensor:
    """What a model would see of images with these ids (by default 0, 1, ...)."""
    ids = torch.arange(len(images)) if ids is None else ids
    return condition.apply(images, torch.zeros(len(images), dtype=torch.long), ids, model_of(Peek))


def ours(name: str, severity: int, levels: ndarray, seeds: int = 1) -> ndarray:
    """An image under a condition with `seeds` different ids: [seeds, H, W, 3]."""
    condition = Corruption(SPECS[name], severity, levels.shape[:2])
    images = apply(condition, as_images(levels, seeds))
    return (images * 255).round().permute(0, 2, 3, 1).numpy().astype(np.uint8)


def truncated(values: ndarray) -> ndarray:
    """Values in [0, 1] to levels."""
    return (np.clip(values, 0, 1) * 255).astype(np.uint8)


def brightness(levels: ndarray, added: float) -> ndarray:
    return truncated(_by_hsv(levels, lambda h, s, v: (h, s, min(v + added, 1))))


def saturate(levels: ndarray, constants: tuple[float, float]) -> ndarray:
    factor, added = constants
    return truncated(_by_hsv(levels, lambda h, s, v: (h, min(max(s * factor + added, 0), 1), v)))


def _by_hsv(levels: ndarray, change: Callable[[float, float, float], tuple[float, float, float]]) -> ndarray:
    pixels = (levels / 255).reshape(-1, 3).tolist()
    return np.array([colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*pixel))) for pixel in pixels]).reshape(levels.shape)


def contrast(levels: ndarray, factor: float) -> ndarray:
    x = levels / 255
    mean = x.mean((0, 1))
    return truncated((x - mean) * factor + mean)


def gaussian_blur(levels: ndarray, sigma: float) -> ndarray:
    return truncated(ndimage.gaussian_filter(levels / 255, (sigma, sigma, 0), mode="nearest"))


def defocus_blur(levels: ndarray, constants: tuple[float, float]) -> ndarray:
    radius, smoothing = constants
    reach, taps = (8, 1) if radius <= 8 else (radius, 2)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    kernel = (x**2 + y**2 <= radius**2) / (x**2 + y**2 <= radius**2).sum()
    one = np.exp(-(np.arange(-taps, taps + 1) ** 2) / (2 * smoothing**2))
    kernel = ndimage.convolve(kernel, np.outer(one, one) / one.sum() ** 2, mode="mirror")
    return truncated(np.stack([ndimage.convolve(levels[..., k] / 255, kernel, mode="mirror") for k in range(3)], -1))


def clipped_zoom(values: ndarray, factor: float) -> ndarray:
    cut = [math.ceil(side / factor) for side in values.shape[:2]]
    start = [(side - part) // 2 for side, part in zip(values.shape[:2], cut, strict=True)]
    centre = values[start[0] : start[0] + cut[0], start[1] : start[1] + cut[1]]
    grown = ndimage.zoom(centre, (factor, factor, 1), order=1)
    start = [(big - side) // 2 for big, side in zip(grown.shape[:2], values.shape[:2], strict=True)]
    return grown[start[0] : start[0] + values.shape[0], start[1] : start[1] + values.shape[1]]


def zoom_blur(levels: ndarray, constants: tuple[float, float]) -> ndarray:
    x, factors = levels / 255, np.arange(1, *constants)
    return truncated((x + sum(clipped_zoom(x, factor) for factor in factors)) / (len(factors) + 1))


def pixelate(levels: ndarray, share: float) -> ndarray:
    height, width = levels.shape[:2]
    small = Image.fromarray(levels).resize((int(width * share), int(height * share)), Image.Resampling.BOX)
    return np.array(small.resize((width, height), Image.Resampling.BOX))


def jpeg_compression(levels: ndarray, quality: int) -> ndarray:
    stream = io.BytesIO()
    Image.fromarray(levels).save(stream, "JPEG", quality=quality)
    return np.array(Image.open(stream))


def elastic_transform(levels: ndarray, constants: tuple[float, float, float], random: np.random.Generator) -> ndarray:
    """As published, with scipy instead of OpenCV; for square images."""
    alpha, sigma, distance = constants
    side = len(levels)
    x = levels / 255
    centre, size = side // 2, side // 3
    points = np.array([[centre + size, centre + size], [centre + size, centre - size], [centre - size, centre - size]])
    moved = points + random.uniform(-distance, distance, (3, 2))
    back = np.linalg.solve(np.c_[moved, np.ones(3)], points)  # (x, y, 1) -> (x, y)
    rows, columns = np.mgrid[:side, :side]
    source = np.stack([columns, rows, np.ones_like(rows)], -1) @ back
    x = _sampled(x, source[..., 1], source[..., 0], "mirror")
    if alpha:
        dx, dy = (ndimage.gaussian_filter(random.uniform(-1, 1, (side, side)), sigma, mode="reflect", truncate=3) * alpha for _ in range(2))
        x = _sampled(x, rows + dy, columns + dx, "reflect")
    return truncated(x)


def _sampled(values: ndarray, rows: ndarray, columns: ndarray, mode: str) -> ndarray:
    return np.stack([ndimage.map_coordinates(values[..., k], [rows, columns], order=1, mode=mode) for k in range(3)], -1)


def frost(levels: ndarray, constants: tuple[float, float], windows: list[ndarray], random: np.random.Generator) -> ndarray:
    window = windows[random.integers(5)]
    height, width = levels.shape[:2]
    top, left = random.integers(0, window.shape[0] - height), random.integers(0, window.shape[1] - width)
    return truncated((constants[0] * levels + constants[1] * window[top : top + height, left : left + width]) / 255)


def scanned(pixels: ndarray, draws: ndarray, delta: int) -> ndarray:
    """Glass blur's scan of [H, W, ...] as published: from the end, each pixel gets the current value of its partner."""
    result = pixels.copy()
    height, width = draws.shape
    for y in range(height - delta, delta, -1):
        for x in range(width - delta, delta, -1):
            choice = int(draws[y, x]) * 4 * delta**2 >> 15
            result[y, x] = result[y + choice // (2 * delta) - delta, x + choice % (2 * delta) - delta]
    return result


def plasma(draws: ndarray, side: int, decay: float) -> ndarray:
    """Diamond-square point by point. draws: in [0, 1), used in the order squares, then points above or below, then beside, row by row."""
    cloud, queue, step, wibble = np.zeros((side, side)), iter(draws), side, 100.0

    def filled(rows: range, columns: range, offsets: list[tuple[int, int]]) -> None:
        for y in rows:
            for x in columns:
                mean = sum(cloud[(y + dy) % side, (x + dx) % side] for dy, dx in offsets) / 4
                cloud[y, x] = mean + wibble * wibble * (2 * next(queue) - 1)

    while step >= 2:
        half = step // 2
        on, between = range(0, side, step), range(half, side, step)
        straight = [(-half, 0), (half, 0), (0, -half), (0, half)]
        filled(between, between, [(-half, -half), (-half, half), (half, -half), (half, half)])
        filled(on, between, straight)
        filled(between, on, straight)
        step, wibble = half, wibble / decay
    cloud -= cloud.min()
    return cloud / cloud.max()


def statistics(corrupted: ndarray, clean: ndarray) -> dict[str, ndarray]:
    """Statistics of a random corruption, in levels except for the shares. corrupted: [seeds, H, W, 3].

    distortion: the mean absolute residual. spectrum: shares of the residual's power in four bands of spatial frequency. quantiles: of
    the values. spread: the standard deviation over seeds, averaged over values.
    """
    residual = corrupted.astype(np.float32) - clean
    power = (np.abs(np.fft.fft2(residual, axes=(1, 2))) ** 2).mean((0, 3))
    frequency = np.hypot(np.fft.fftfreq(clean.shape[0])[:, None], np.fft.fftfreq(clean.shape[1]))
    band = np.digitize(frequency, (1 / 32, 1 / 8, 1 / 4))
    return {
        "distortion": np.abs(residual).mean(),
        "spectrum": np.array([power[band == k].sum() for k in range(4)]) / power.sum(),
        "quantiles": np.quantile(corrupted, (0.05, 0.25, 0.5, 0.75, 0.95)),
        "spread": corrupted.std(0).mean(),
    }
