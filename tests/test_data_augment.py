"""The augmentation of batches, against that of single images by Pillow and torchvision."""

import numpy as np
import pytest
import torch
from data_files import picture
from PIL import Image
from scipy.stats import ks_2samp
from torch import Tensor
from torchvision.transforms import InterpolationMode, autoaugment, v2

from glimpsezoo.core.noise import Noise
from glimpsezoo.data.augment import Augmentation, crop_boxes, distorted, resized_together
from glimpsezoo.data.autoaugment import autoaugmented
from glimpsezoo.data.config import AugmentedSettings


def images(count: int, height: int = 64, width: int = 64) -> Tensor:
    """Random pixels: [n, 3, height, width]."""
    return torch.randint(256, (count, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("height", "width", "area", "aspect"), [(64, 64, 0.08, 4 / 3), (40, 90, 0.5, 2.0), (20, 200, 0.9, 4 / 3)])
def test_crops_have_the_distribution_of_torchvisions(height: int, width: int, area: float, aspect: float) -> None:
    count = 2000
    noise = Noise.of(3, torch.arange(count))
    found = crop_boxes(torch.tensor([[height, width]]).expand(count, -1), noise, area, aspect)
    torch.manual_seed(0)
    theirs = v2.RandomResizedCrop(64, scale=(area, 1.0), ratio=(1 / aspect, aspect))
    drawn = [theirs.make_params([torch.empty(3, height, width)]) for _ in range(count)]
    for column, key in enumerate(("top", "left", "height", "width")):
        assert ks_2samp(found[:, column].numpy(), [each[key] for each in drawn]).pvalue > 0.001, key
    assert (found[:, :2] >= 0).all()
    assert (found[:, :2] + found[:, 2:] <= torch.tensor([height, width])).all()


def test_a_crop_that_is_not_reduced_is_resized_as_by_pillow() -> None:
    pixels, ids = images(20), torch.arange(20)
    views = Augmentation((64, 64), AugmentedSettings(colours="keep"))(pixels, ids, 5)
    boxes = crop_boxes(torch.full((20, 2), 64), Noise.of(0, ids).fork(5), 0.08, 4 / 3)
    for image, view, (top, left, height, width) in zip(pixels, views, boxes.tolist(), strict=True):
        cut = Image.fromarray(image.permute(1, 2, 0).numpy()).crop((left, top, left + width, top + height))
        expected = torch.from_numpy(np.array(cut.resize((64, 64), Image.Resampling.BILINEAR))).permute(2, 0, 1)
        off = min(int((view.int() - each.int()).abs().max()) for each in (expected, expected.flip(2)))
        assert off <= 1  # level of 255, by which torch 2.6 rounds otherwise than Pillow
        same = v2.functional.resize(image[:, top : top + height, left : left + width], [64, 64], antialias=True)
        assert torch.equal(view, same) or torch.equal(view, same.flip(2))


@pytest.mark.parametrize("size", [(64, 64), (24, 100)])
def test_crops_resized_together_are_those_resized_one_by_one(size: tuple[int, int]) -> None:
    pixels = images(16, 64, 80)
    boxes = crop_boxes(torch.tensor([[64, 80]]).expand(16, -1), Noise.of(0, torch.arange(16)), 0.08, 4 / 3)
    together = resized_together(pixels, boxes, size)
    for image, view, (top, left, height, width) in zip(pixels, together, boxes.tolist(), strict=True):
        expected = v2.functional.resize(image[:, top : top + height, left : left + width], list(size), antialias=True)
        assert (view.int() - expected.int()).abs().max() <= 1


def test_half_of_the_views_are_flipped() -> None:
    config = AugmentedSettings(colours="keep", crop_area=1.0, crop_aspect=1.0)
    pixels = images(1).expand(400, -1, -1, -1)
    views = Augmentation((64, 64), config)(pixels, torch.arange(400), 0)
    flipped = (views == pixels.flip(3)).all(3).all(2).all(1)
    assert ((views == pixels).all(3).all(2).all(1) ^ flipped).all()
    assert 150 < int(flipped.sum()) < 250


def test_autoaugment_changes_images_as_torchvision_changes_each() -> None:
    policy = autoaugment.AutoAugment()
    count = 300
    pixels = torch.stack([torch.from_numpy(np.array(picture(k, 32))).permute(2, 0, 1) for k in range(count)])
    draws = torch.rand(count, 5, generator=torch.Generator().manual_seed(1))
    found = autoaugmented(pixels, draws)
    space = policy._augmentation_space(10, (32, 32))
    for image, view, (pair, *own) in zip(pixels, found, draws.tolist(), strict=True):
        for (name, probability, level), (happens, sign) in zip(policy.policies[int(pair * 25)], (own[:2], own[2:]), strict=True):
            if happens <= probability:
                magnitudes, signed = space[name]
                magnitude = float(magnitudes[level]) if level is not None else 0.0
                magnitude = -magnitude if signed and sign <= 0.5 else magnitude
                image = autoaugment._apply_op(image, name, magnitude, InterpolationMode.NEAREST, None)  # noqa: PLW2901
        assert (view.int() - image.int()).abs().float().mean() < 1  # rounding, of 255 levels


def test_distortion_changes_brightness_contrast_and_saturation_by_up_to_half() -> None:
    count = 500
    draws = torch.rand(count, 6, generator=torch.Generator().manual_seed(1))
    grey = torch.full((count, 3, 4, 4), 100, dtype=torch.uint8)
    shades = distorted(grey, draws)
    assert (shades == shades[:, :1, :1, :1]).all()  # one colour has no contrast, and grey no saturation
    assert {51, 149} <= set(shades.flatten().tolist()) <= set(range(48, 151))  # every change rounds down
    only = draws.clone()
    only[:, 0] = only[:, 2] = 0.5  # neither brightness nor saturation
    board = torch.tensor([[80, 120], [120, 80]], dtype=torch.uint8).expand(count, 3, 2, 2)
    spread = distorted(board, only).float().amax((1, 2, 3)) - distorted(board, only).float().amin((1, 2, 3))
    assert torch.allclose(spread, 40 * (0.5 + draws[:, 1]), atol=1.1)
    only = draws.clone()
    only[:, :2] = 0.5
    red = torch.tensor([160, 90, 90], dtype=torch.uint8)[:, None, None].expand(count, 3, 2, 2)
    colours = distorted(red, only).float()
    assert torch.allclose(colours[:, 0, 0, 0] - colours[:, 1, 0, 0], 70 * (0.5 + draws[:, 2]), atol=1.1)


def test_a_view_depends_on_seed_id_and_epoch_alone() -> None:
    pixels, ids = images(9), torch.arange(9) * 7
    augment = Augmentation((32, 48), AugmentedSettings())
    views = augment(pixels, ids, 2)
    assert views.shape == (9, 3, 32, 48)
    some = torch.tensor([4, 1])
    assert torch.equal(augment(pixels[some], ids[some], 2), views[some])
    assert not torch.equal(augment(pixels, ids, 3), views)
    assert not torch.equal(Augmentation((32, 48), AugmentedSettings(seed=1))(pixels, ids, 2), views)
