"""`digits`: real handwriting, split by class; places are a function of (seed, split, digit, placement)."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from data_files import opened, spec_of
from PIL import Image
from safetensors.torch import load_file
from sklearn.datasets import load_digits

from glimpsezoo.data import Batch, ImageData, batches, digits

SPLITS = ("train", "calibration", "test")


def whole(data: ImageData) -> Batch:
    return next(batches(data, 0, len(data), len(data)))


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_has_the_size_that_its_card_states(split: str) -> None:
    data = opened("digits", split)
    assert len(data) == spec_of("digits").splits[split]
    assert data.info.split == split
    assert data[0].image.shape == (1, 64, 64)
    assert data.empty_classes() == ()


def test_no_digit_is_in_two_splits_and_none_is_lost() -> None:
    groups = [set(whole(opened("digits", split)).groups.tolist()) for split in SPLITS]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 1797


def test_splits_are_stratified() -> None:
    source = np.bincount(load_digits().target)
    test = np.bincount(opened("digits", "test").labels()) / 5
    calibration = np.bincount(opened("digits", "calibration").labels()) / 5
    assert np.abs(test - source / 3).max() < 1
    assert np.abs(calibration - (source - test) / 10).max() < 1


def test_each_digit_stands_at_five_places_and_shares_its_group() -> None:
    found = whole(opened("digits", "test"))
    assert len(set(found.groups[:5].tolist())) == len(set(found.labels[:5].tolist())) == 1
    assert len({image.numpy().tobytes() for image in found.images[:5]}) == 5
    assert set(Counter(found.groups.tolist()).values()) == {5}
    assert len(set(found.ids.tolist())) == len(found.ids)


def test_the_handwriting_is_that_of_scikit_learn() -> None:
    stored, source = load_file(Path(digits.__file__).with_name("digits.safetensors")), load_digits()
    assert np.array_equal(stored["pixels"], source.images)
    assert np.array_equal(stored["labels"], source.target)


def test_the_pixels_are_the_handwriting_enlarged_to_20_px() -> None:
    source = load_digits()
    example = opened("digits", "test")[12]
    rows, columns = example.image[0].nonzero().T
    top, left = int(rows.min()), int(columns.min())
    large = Image.fromarray(source.images[example.group].astype(np.float32)).resize((20, 20), Image.Resampling.BILINEAR)
    expected = np.round(np.array(large) * 255 / 16) / 255
    inked = np.argwhere(expected > 0)
    y, x = top - inked[:, 0].min(), left - inked[:, 1].min()
    found = example.image[0, y : y + 20, x : x + 20].numpy()
    assert np.abs(found - expected).max() <= 1.01 / 255  # Pillow's own rounding
    assert float(example.image.sum()) == pytest.approx(float(found.sum()))
    assert int(source.target[example.group]) == example.label


def test_places_cover_the_canvas_and_depend_on_seed_split_and_placement() -> None:
    data, other = opened("digits", "test"), opened("digits", "test", seed=1)
    assert not torch.equal(data[0].image, other[0].image)
    assert data.info.fingerprint != other.info.fingerprint
    batch = whole(data)
    assert bool((batch.images.amax((0, 1, 3)) > 0).all())  # together they reach every row of the canvas
    assert torch.equal(batch.images[7], data[7].image)
    again = next(batches(opened("digits", "test"), 0, 10, 10))
    assert torch.equal(again.images, batch.images[:10])


def test_training_places_anew_each_epoch() -> None:
    data = opened("digits", "train")
    first, second = data.training_example(3, 0), data.training_example(3, 1)
    assert not torch.equal(first.image, second.image)
    assert torch.equal(first.image, data.training_example(3, 0).image)
    assert first.label == second.label == data[3].label
    assert torch.equal(data.training_batch([7, 3], 1).images[1], second.image)


def test_a_batch_is_float_in_0_to_1() -> None:
    batch = next(batches(opened("digits", "test"), 0, 1000, 1000))
    assert batch.images.shape == (1000, 1, 64, 64)
    assert batch.images.dtype == torch.float32
    assert float(batch.images.min()) == 0
    assert float(batch.images.max()) == 1
