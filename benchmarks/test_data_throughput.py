"""Decoding keeps up with the model: ResNet-18 on 64 px JPEG images from the loader with workers, against the same images in memory.

    pytest benchmarks/test_data_throughput.py -s

The result is the throughput with the loader as a share of that without it, the median of several alternating turns. A turn takes many more
images than the loader prefetches. The model runs on a GPU if there is one, otherwise on the cores that the workers leave.
"""

import os
import statistics
import time
from collections.abc import Iterator

import pytest
import torch
from data_files import encoded, picture, write_parquet
from torchvision.models import resnet18

from glimpsezoo.data import Batch, ImageData, batches, open_data
from glimpsezoo.zoo.names import data_spec

LEAST = 0.95
GPU = torch.cuda.is_available()
CORES = len(os.sched_getaffinity(0))
WORKERS = max(1, CORES - 2) if GPU else max(1, CORES // 2)
BATCH, IMAGES, TURNS = (512, 51_200, 5) if GPU else (64, 1_280, 5)
SHORT = "GLIMPSEZOO_SHORT" in os.environ  # one turn, to check that it runs: times on a busy machine mean nothing


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageData:
    """Different images in the size and layout of Tiny ImageNet."""
    folder = tmp_path_factory.mktemp("throughput")
    for split, count in (("valid", IMAGES), ("train", 20)):
        content = [encoded(picture(k, 64), "JPEG") for k in range(count)]
        write_parquet(folder / f"{split}-00000-of-00001.parquet", content, [k % 200 for k in range(count)], group=100)
    return open_data(data_spec("tiny-imagenet"), "tiny-imagenet", "test", {}, folder, on_bad_image="skip")


@torch.no_grad()
def seconds(model: torch.nn.Module, loaded: Iterator[Batch], device: torch.device) -> float:
    """Time to classify all images but those of the first batch, which includes the start of the workers."""
    next(loaded)
    start = time.perf_counter()
    for batch in loaded:
        model(batch.images.to(device, non_blocking=True)).argmax(1).cpu()
    return time.perf_counter() - start


def test_the_loader_keeps_up(images: ImageData) -> None:
    device = torch.device("cuda" if GPU else "cpu")
    torch.set_num_threads(max(1, CORES - WORKERS))
    model = resnet18(num_classes=200).eval().to(device)
    in_memory = list(batches(images, 0, 4 * BATCH, BATCH)) * (IMAGES // BATCH // 4)
    shares, speeds = [], []
    for _ in range(1 if SHORT else TURNS):
        bare = seconds(model, iter(in_memory), device)
        fed = seconds(model, batches(images, 0, IMAGES, BATCH, WORKERS), device)
        shares.append(bare / fed)
        speeds.append((IMAGES - BATCH) / bare)
    start = time.process_time()
    for _ in batches(images, 0, 1_000, 100):
        pass
    decoding = 1_000 / (time.process_time() - start)
    share, speed = statistics.median(shares), statistics.median(speeds)
    print(f"{device.type}, {WORKERS} workers: bare {speed:.0f} images/s, fed {share:.1%} of it; one core decodes {decoding:.0f} images/s")
    assert share >= LEAST or SHORT
