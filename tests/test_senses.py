"""The senses, each against a slow loop over pixels; what is seen is where the region says."""

import math
from collections.abc import Callable, Sequence
from itertools import product

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from glimpsezoo import Regions, bilinear_crop, crop, grid_crop, resample, retina, straight_through_crop, thumbnail

HEIGHT, WIDTH = 9, 13
Weights = Callable[[float], dict[int, float]]


@pytest.fixture
def images() -> Tensor:
    return torch.rand(3, 2, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))


def regions_of(centre: Tensor, scale: Tensor | None = None, batch: int = 3) -> Regions:
    """Several regions of each of `batch` images."""
    count = len(centre)
    scale = torch.ones(count) if scale is None else scale
    none, image = torch.zeros(count, dtype=torch.long), torch.arange(count) * batch // count
    return Regions(image=image, centre=centre, scale=scale, level=none, parent=none - 1, batch=batch)


@pytest.fixture
def regions() -> Regions:
    """40 regions, also at the corners and between pixels, of any size."""
    draws = torch.rand(40, 3, generator=torch.Generator().manual_seed(1))
    corners = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [0.0, 0.0], [1.0, -1.0]])
    return regions_of(torch.cat([2 * draws[4:, :2] - 1, corners]), draws[:, 2])


def slow_crop(image: Tensor, centre: Sequence[float], side: int) -> Tensor:
    """Pixel by pixel, without vectors."""
    left, top = (math.floor((c + 1) / 2 * size - side / 2 + 0.5) for c, size in zip(centre, (WIDTH, HEIGHT), strict=True))
    view = torch.zeros(len(image), side, side)
    for y, x in product(range(side), range(side)):
        if 0 <= top + y < HEIGHT and 0 <= left + x < WIDTH:
            view[:, y, x] = image[:, top + y, left + x]
    return view


def bilinear(t: float) -> dict[int, float]:
    """The weight of each pixel for a point t px after the middle of the first."""
    low = math.floor(t)
    return {low: 1 - (t - low), low + 1: t - low}


def bicubic(t: float) -> dict[int, float]:
    """Keys' cubic convolution (1981, equation 4) with a = -0.75, as torch has it."""

    def weight(d: float) -> float:
        return 1.25 * d**3 - 2.25 * d**2 + 1 if d <= 1 else -0.75 * d**3 + 3.75 * d**2 - 6 * d + 3

    return {k: weight(abs(t - k)) for k in range(math.floor(t) - 1, math.floor(t) + 3)}


def slow_point(image: Tensor, x: float, y: float, weights: Weights, repeat: bool = False) -> Tensor:
    """The value of an image at (x, y) px from the middle of its first pixel; outside is 0, or the nearest pixel."""
    value, (height, width) = torch.zeros(len(image)), image.shape[1:]
    for (row, down), (column, along) in product(weights(y).items(), weights(x).items()):
        i, j = min(max(row, 0), height - 1), min(max(column, 0), width - 1)
        if repeat or (i, j) == (row, column):
            value += down * along * image[:, i, j]
    return value


@pytest.mark.parametrize("side", [1, 4, 5, 20])
def test_a_crop_is_what_a_loop_over_pixels_takes(images: Tensor, regions: Regions, side: int) -> None:
    expected = [slow_crop(images[i], centre, side) for i, centre in zip(regions.image, regions.centre.tolist(), strict=True)]
    assert torch.equal(crop(images, regions, side), torch.stack(expected))


def test_a_retina_averages_every_wider_crop(images: Tensor, regions: Regions) -> None:
    views = retina(images, regions, 4, 3)
    assert views.shape == (40, 3, 2, 4, 4)
    for n, (i, centre) in enumerate(zip(regions.image, regions.centre.tolist(), strict=True)):
        for scale in range(3):
            wide = slow_crop(images[i], centre, 4 << scale)
            for row, column in product(range(4), range(4)):
                cell = wide[:, row << scale : (row + 1) << scale, column << scale : (column + 1) << scale]
                torch.testing.assert_close(views[n, scale, :, row, column], cell.mean((1, 2)))


def test_a_grid_crop_takes_the_nearest_cell_of_a_grid_of_half_its_side() -> None:
    images = torch.rand(3, 1, 8, 12, generator=torch.Generator().manual_seed(2))  # 4 x 4 crops begin at 0, 2, 4 (down), and 6, 8 (along)
    for (row, top), (column, left) in product(((0, 0), (2, 2), (4.9, 4), (9, 4)), ((-3, 0), (2.9, 2), (5.1, 6), (8, 8))):
        centre = torch.tensor([[2 * (column + 2) / 12 - 1, 2 * (row + 2) / 8 - 1]]).expand(3, 2)
        at = Regions.one_each(centre, 4 / 12, ratio=12 / 8)
        assert torch.equal(grid_crop(images, at, 4), images[:, :, top : top + 4, left : left + 4]), (row, column)


@pytest.mark.parametrize("weights", [bilinear, bicubic])
@pytest.mark.parametrize("align_corners", [False, True])
def test_resampling_takes_points_over_the_region(images: Tensor, regions: Regions, weights: Weights, align_corners: bool) -> None:
    size, mode = (3, 4), weights.__name__
    views = resample(images, regions, size, mode=mode, align_corners=align_corners)  # type: ignore[arg-type]
    assert views.shape == (40, 2, 3, 4)
    for n, ((cx, cy), scale) in enumerate(zip(regions.centre.tolist(), regions.scale.tolist(), strict=True)):
        for i, j in product(range(3), range(4)):
            if align_corners:
                x, y = cx + scale * (2 * j / 3 - 1), cy + scale * (2 * i / 2 - 1)
                at = (x + 1) / 2 * (WIDTH - 1), (y + 1) / 2 * (HEIGHT - 1)
            else:
                x, y = cx + scale * ((2 * j + 1) / 4 - 1), cy + scale * ((2 * i + 1) / 3 - 1)
                at = (x + 1) / 2 * WIDTH - 0.5, (y + 1) / 2 * HEIGHT - 0.5
            expected = slow_point(images[regions.image[n]], *at, weights)
            torch.testing.assert_close(views[n, :, i, j], expected, atol=1e-4, rtol=1e-4)


def test_a_square_of_pixels_is_one_in_an_image_that_is_none(images: Tensor) -> None:
    square = Regions.one_each(torch.tensor([[0.1, -0.2]] * 3), 4 / WIDTH, ratio=WIDTH / HEIGHT)
    torch.testing.assert_close(square.half, torch.tensor([[4 / WIDTH, 4 / HEIGHT]] * 3))
    torch.testing.assert_close(resample(images, square, (4, 4)), bilinear_crop(images, square, 4))


def test_one_point_is_the_middle_of_the_region_and_every_point_has_a_gradient(images: Tensor) -> None:
    centre, scale = torch.tensor([[0.1, -0.2]] * 3, requires_grad=True), torch.tensor([0.5] * 3, requires_grad=True)
    views = [resample(images, Regions.one_each(centre, scale), (1, 1), align_corners=corners) for corners in (False, True)]
    for view, (width, height, half) in zip(views, ((WIDTH, HEIGHT, 0.5), (WIDTH - 1, HEIGHT - 1, 0)), strict=True):
        expected = slow_point(images[1], 1.1 / 2 * width - half, 0.8 / 2 * height - half, bilinear)
        torch.testing.assert_close(view[1, :, 0, 0].detach(), expected)
    gradients = torch.autograd.grad(resample(images, Regions.one_each(centre, scale), (3, 3)).square().sum(), (centre, scale))
    assert all(each.abs().min() > 0 for each in gradients)


@pytest.mark.parametrize("side", [4, 5])
def test_what_is_seen_lies_where_the_region_says_to_half_a_pixel(regions: Regions, side: int) -> None:
    """The crop of an image whose pixels hold their own places has these places' mean at its centre; so has every other sense."""
    y, x = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
    held, size = torch.stack([x, y])[None].expand(3, -1, -1, -1), torch.tensor([WIDTH, HEIGHT])
    place = (regions.centre + 1) / 2 * size
    inside = ((place - size / 2).abs() < torch.tensor([3.5, 1.5])).all(1)
    assert inside.sum() > 5
    within = Regions.one_each(regions.centre[inside], torch.full((int(inside.sum()),), 0.2))
    for found, allowed in (
        (crop(held, regions, side)[inside], 0.5),
        (bilinear_crop(held, regions, side)[inside], 1e-5),
        (resample(held[:1].expand(len(within), -1, -1, -1), within, (side, side)), 1e-5),
        (resample(held[:1].expand(len(within), -1, -1, -1), within, (side, side), mode="bicubic"), 0.02),  # torch's is not exact on a slope
        (resample(held[:1].expand(len(within), -1, -1, -1), within, (side, side), align_corners=True), 0.5),
    ):
        assert (found.mean((2, 3)) - place[inside]).abs().max() <= allowed + 1e-5


def test_a_soft_crop_has_the_same_values_and_a_gradient_in_its_centre(images: Tensor, regions: Regions) -> None:
    moved = regions_of(regions.centre.clone().requires_grad_())
    soft = straight_through_crop(images, moved, 4)
    assert torch.equal(soft.detach(), crop(images, moved, 4))
    soft.square().sum().backward()
    assert moved.centre.grad is not None
    assert moved.centre.grad.abs().sum() > 0
    assert not retina(images, moved, 4, 2).requires_grad
    assert torch.equal(retina(images, moved, 4, 2, soft=True).detach(), retina(images, moved, 4, 2))


@pytest.mark.parametrize("side", [1, 4, 5])
def test_a_soft_crop_has_the_gradient_of_a_bilinear_crop_and_the_pixels_of_the_hard_one(side: int) -> None:
    images = torch.rand(2, 2, HEIGHT, WIDTH, dtype=torch.float64, requires_grad=True)
    centre = (2 * torch.rand(5, 2, dtype=torch.float64) - 1).requires_grad_()
    regions = regions_of(centre, batch=2)
    weight = torch.rand(5, 2, side, side, dtype=torch.float64)
    hard, soft = (f(images, regions, side) for f in (straight_through_crop, bilinear_crop))
    assert torch.equal(hard, crop(images, regions, side))
    got, expected = (torch.autograd.grad((weight * f).sum(), (images, centre)) for f in (hard, soft))
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other)
    for row, (x, y) in enumerate(centre.tolist()):  # the bilinear crop, computed a second time
        left, top = (x + 1) / 2 * WIDTH - side / 2, (y + 1) / 2 * HEIGHT - side / 2
        for i, j in product(range(side), range(side)):
            value = slow_point(images[regions.image[row]].detach(), left + j, top + i, bilinear)
            torch.testing.assert_close(soft[row, :, i, j].detach().float(), value, atol=1e-5, rtol=1e-5)


def test_odd_patches_have_no_common_centre_at_several_scales(images: Tensor, regions: Regions) -> None:
    with pytest.raises(ValueError, match="even patch"):
        retina(images, regions, 3, 2)


@pytest.mark.parametrize(
    ("old", "new"), [((64, 64), (56, 56)), ((30, 50), (14, 28)), ((9, 10), (14, 14)), ((56, 56), (14, 14)), ((7, 7), (7, 7))]
)
def test_a_thumbnail_is_exact_by_area(old: tuple[int, int], new: tuple[int, int]) -> None:
    """Against the mean of whole pixels on a grid so fine that both sizes divide it."""
    images = torch.rand(2, 1, *old, generator=torch.Generator().manual_seed(0))
    fine = images
    for axis in (2, 3):
        common = math.lcm(old[axis - 2], new[axis - 2])
        fine = fine.repeat_interleave(common // old[axis - 2], axis)
        fine = fine.unflatten(axis, (new[axis - 2], common // new[axis - 2])).mean(axis + 1)
    torch.testing.assert_close(thumbnail(images, new), fine, atol=1e-5, rtol=1e-5)


def test_a_thumbnail_averages_every_pixel_that_it_touches(images: Tensor) -> None:
    small = thumbnail(images, (4, 5), "pixels")
    for row, column in product(range(4), range(5)):
        top, left = math.floor(row * HEIGHT / 4), math.floor(column * WIDTH / 5)
        bottom, right = math.ceil((row + 1) * HEIGHT / 4), math.ceil((column + 1) * WIDTH / 5)
        torch.testing.assert_close(small[:, :, row, column], images[:, :, top:bottom, left:right].mean((2, 3)))


@pytest.mark.parametrize("weights", [bilinear, bicubic])
@pytest.mark.parametrize("align_corners", [False, True])
def test_a_thumbnail_is_interpolated_between_pixels(images: Tensor, weights: Weights, align_corners: bool) -> None:
    small = thumbnail(images, (4, 5), weights.__name__, align_corners=align_corners)  # type: ignore[arg-type]
    for row, column in product(range(4), range(5)):
        at = (column * (WIDTH - 1) / 4, row * (HEIGHT - 1) / 3)
        if not align_corners:
            at = ((column + 0.5) * WIDTH / 5 - 0.5, (row + 0.5) * HEIGHT / 4 - 0.5)
        torch.testing.assert_close(small[0, :, row, column], slow_point(images[0], *at, weights, repeat=True), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(small, F.interpolate(images, (4, 5), mode="area"))
