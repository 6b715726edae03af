"""Data sets that may be on the developer's machine: their published sizes, labels and pixels. Skipped if they are missing."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from data_files import opened, spec_of

from glimpsezoo.data import batches, hub
from glimpsezoo.data.mnist import SOURCE

ROOT = Path(os.environ.get("GLIMPSEZOO_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data")
needs_mnist = pytest.mark.skipif(not (ROOT / "mnist").is_dir(), reason="no copy of MNIST")
needs_tiny = pytest.mark.skipif(not (ROOT / "tiny-imagenet").is_dir(), reason="no copy of Tiny ImageNet")


@needs_mnist
@pytest.mark.parametrize("folder", ["", "mnist", "mnist/mnist"])
def test_mnist_is_found_below_at_and_above_its_folder_with_its_published_labels(folder: str) -> None:
    found = hub.find(SOURCE, ROOT / folder)
    labels = hub.open_images(found, "test", ("image", "label"), streaming=False, shuffled=False).label_column().to_pylist()
    assert labels[:10] == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert np.bincount(labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


@needs_mnist
def test_mnist_has_about_its_known_mean_and_deviation() -> None:
    data = opened("mnist", "calibration", ROOT)
    assert len(data) == spec_of("mnist").splits["calibration"]
    pixels = torch.cat([batch.images for batch in batches(data, 0, len(data), 1000)])
    assert float(pixels.mean()) == pytest.approx(0.1307, abs=0.002)
    assert float(pixels.std()) == pytest.approx(0.3081, abs=0.002)


@needs_tiny
def test_tiny_imagenet_has_the_sizes_on_its_card_and_balanced_splits() -> None:
    for split, each in (("test", 50), ("calibration", 25), ("train", 475)):
        data = opened("tiny-imagenet", split, ROOT, streaming=True)
        assert len(data) == spec_of("tiny-imagenet").splits[split]
        assert np.bincount(data.labels()).tolist() == [each] * 200


@needs_tiny
def test_tiny_imagenet_decodes_colour_and_grey_alike() -> None:
    data = opened("tiny-imagenet", "test", ROOT)
    batch = next(batches(data, 0, 400, 400))
    assert batch.images.shape == (400, 3, 64, 64)
    grey = (batch.images[:, 0] - batch.images[:, 1]).abs().amax((1, 2)) == 0
    assert 0 < int(grey.sum()) < 40
