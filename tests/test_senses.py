"""The senses: crops at whole pixels and the retina, against a slow loop over pixels; what is seen is where the region says."""

import math

import pytest
import torch
from torch import Tensor

from glimpsezoo import crop, retina
from glimpsezoo.core.senses import bilinear_crop, straight_through_crop

HEIGHT, WIDTH = 9, 13


@pytest.fixture
def images() -> Tensor:
    return torch.rand(3, 2, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def regions() -> tuple[Tensor, Tensor]:
    """The images and the centres of 40 regions, also at the corners and between pixels."""
    draws = torch.rand(36, 2, generator=torch.Generator().manual_seed(1)) * 2 - 1
    centre = torch.cat([draws, torch.tensor([[-1.0, -1.0], [1.0, 1.0], [0.0, 0.0], [1.0, -1.0]])])
    return torch.arange(40) % 3, centre


def slow_crop(image: Tensor, centre: tuple[float, float], side: int) -> Tensor:
    """Pixel by pixel, without vectors."""
    left, top = (math.floor((c + 1) / 2 * size - side / 2 + 0.5) for c, size in zip(centre, (WIDTH, HEIGHT), strict=True))
    view = torch.zeros(len(image), side, side)
    for y in range(side):
        for x in range(side):
            if 0 <= top + y < HEIGHT and 0 <= left + x < WIDTH:
                view[:, y, x] = image[:, top + y, left + x]
    return view


@pytest.mark.parametrize("side", [1, 4, 5, 20])
def test_a_crop_is_what_a_loop_over_pixels_takes(images: Tensor, regions: tuple[Tensor, Tensor], side: int) -> None:
    image, centre = regions
    expected = torch.stack([slow_crop(images[i], (x, y), side) for i, (x, y) in zip(image, centre.tolist(), strict=True)])
    assert torch.equal(crop(images, image, centre, side), expected)


def test_a_retina_averages_every_wider_crop(images: Tensor, regions: tuple[Tensor, Tensor]) -> None:
    image, centre = regions
    views = retina(images, image, centre, 4, 3)
    assert views.shape == (40, 3, 2, 4, 4)
    for n, (i, (x, y)) in enumerate(zip(image, centre.tolist(), strict=True)):
        for scale in range(3):
            wide = slow_crop(images[i], (x, y), 4 << scale)
            for row in range(4):
                for column in range(4):
                    cell = wide[:, row << scale : (row + 1) << scale, column << scale : (column + 1) << scale]
                    torch.testing.assert_close(views[n, scale, :, row, column], cell.mean((1, 2)))


@pytest.mark.parametrize("side", [4, 5])
def test_what_is_seen_lies_where_the_region_says_to_half_a_pixel(regions: tuple[Tensor, Tensor], side: int) -> None:
    """The crop of an image whose pixels hold their own places has these places' mean at its centre."""
    image, centre = regions
    y, x = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
    inside = (((centre + 1) / 2 * torch.tensor([WIDTH, HEIGHT]) - torch.tensor([WIDTH, HEIGHT]) / 2).abs() < torch.tensor([3.5, 1.5])).all(
        1
    )
    found = crop(torch.stack([x, y])[None].expand(3, -1, -1, -1), image, centre, side).mean((2, 3))  # [N, 2] in px
    off = (found - (centre + 1) / 2 * torch.tensor([WIDTH, HEIGHT])).abs()[inside]
    assert len(off) > 5
    assert off.max() <= 0.5


def test_a_soft_crop_has_the_same_values_and_a_gradient_in_its_centre(images: Tensor, regions: tuple[Tensor, Tensor]) -> None:
    image, centre = regions
    centre = centre.clone().requires_grad_()
    soft = straight_through_crop(images, image, centre, 4)
    assert torch.equal(soft.detach(), crop(images, image, centre, 4))
    soft.square().sum().backward()
    assert centre.grad is not None
    assert centre.grad.abs().sum() > 0
    assert not retina(images, image, centre, 4, 2).requires_grad
    assert torch.equal(retina(images, image, centre, 4, 2, soft=True).detach(), retina(images, image, centre, 4, 2))


@pytest.mark.parametrize("side", [1, 4, 5])
def test_a_soft_crop_has_the_gradient_of_a_bilinear_crop_and_the_pixels_of_the_hard_one(side: int) -> None:
    images = torch.rand(2, 2, 7, 9, dtype=torch.float64, requires_grad=True)
    centre = (2 * torch.rand(5, 2, dtype=torch.float64) - 1).requires_grad_()
    image = torch.tensor([0, 1, 1, 0, 1])
    weight = torch.rand(5, 2, side, side, dtype=torch.float64)
    hard, soft = (f(images, image, centre, side) for f in (straight_through_crop, bilinear_crop))
    assert torch.equal(hard, crop(images, image, centre, side))
    got, expected = (torch.autograd.grad((weight * f).sum(), (images, centre)) for f in (hard, soft))
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other)
    for row, (x, y) in enumerate(centre.tolist()):  # the bilinear crop, computed a second time
        left, top = (x + 1) / 2 * 9 - side / 2, (y + 1) / 2 * 7 - side / 2
        for i in range(side):
            for j in range(side):
                value = torch.zeros(2, dtype=torch.float64)
                for r in (math.floor(top + i), math.floor(top + i) + 1):
                    for c in (math.floor(left + j), math.floor(left + j) + 1):
                        if 0 <= r < 7 and 0 <= c < 9:
                            value += (1 - abs(top + i - r)) * (1 - abs(left + j - c)) * images[image[row], :, r, c].detach()
                torch.testing.assert_close(soft[row, :, i, j].detach(), value)


def test_odd_patches_have_no_common_centre_at_several_scales(images: Tensor, regions: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(ValueError, match="even patch"):
        retina(images, *regions, 3, 2)
