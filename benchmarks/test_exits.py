"""Early exits: how much of the saved MACs is saved time, at a confidence of .9 on the test images of each card.

pytest benchmarks/test_exits.py --benchmark-json out.json && python benchmarks/ratios.py out.json

Cards on MNIST need its files: GLIMPSEZOO_DATA=FOLDER pytest benchmarks/test_exits.py.
"""

import os
from pathlib import Path

import pytest
import torch
from contenders import SHORT

import glimpsezoo as gz
from glimpsezoo.data import batches

CARDS = {
    "mgnet.digits": "digits",
    "pyramid-m3.digits": "digits",
    "mgnet.tmnist": "tmnist",
    "ranzato.jittered-mnist.2": "jittered-mnist",
}
IMAGES = {1: 64, 32: 1024, 256: 2816}
RULE = gz.Confidence(threshold=0.9)
ROUNDS = 15
FEW = (1, 2, 4, 8, 16, 32)


@pytest.fixture(scope="module", params=CARDS)
def card(request):
    """A model, and test images."""
    folder = os.environ.get("GLIMPSEZOO_DATA")
    if not folder and CARDS[request.param] != "digits":
        pytest.skip("needs the files of MNIST in GLIMPSEZOO_DATA")
    data = gz.open_data(CARDS[request.param], data_dir=Path(folder) if folder else None)
    found = [batch.images for batch in batches(data, 0, max(IMAGES.values()), 256)]
    return gz.load(request.param), [image for images in found for image in images]


@pytest.mark.benchmark(group="exits")
@pytest.mark.parametrize("batch", [1, 32, 256])
def test_exits(benchmark, side_by_side, card, batch):
    """Each round classifies the same images, batch after batch.

    Images that exit leave the batch, or stay in it, or those that are left join those of other batches.
    """
    model, images = card
    chunks = whole_batches(images[: IMAGES[batch]], batch)
    ways = {
        "without": {"exit_rule": None},
        "with": {"exit_rule": RULE},
        "in the batch": {"exit_rule": RULE, "compact": False},
    }

    def way(options):
        return lambda chunks: [gz.rollout(model, chunk, **options) for chunk in chunks]

    def joined(chunks):
        stream = gz.RolloutStream(model, batch_size=batch, exit_rule=RULE)
        return [done for chunk in chunks for done in stream.add(chunk)] + stream.finish()

    with gz.inference(model):
        benchmark.extra_info["macs"] = {name: macs_of(model, chunks, options) for name, options in ways.items()}
        benchmark.extra_info["batches"] = len(chunks)
        contenders = {name: way(options) for name, options in ways.items()}
        side_by_side(contenders | ({"joined": joined} if batch > 1 else {}), [chunks], ROUNDS)


@pytest.mark.benchmark(group="steps")
@pytest.mark.parametrize("batch", [32, 256])
def test_steps(benchmark, side_by_side, card, batch):
    """Whole batches that stop after each step: with the share of the regions that take it, what exits would gain if they cost nothing."""
    model, images = card
    chunks = whole_batches(images, batch)
    with gz.inference(model):
        free, early = (sum(gz.rollout(model, x, exit_rule=rule).regions_by_step().sum(0) for x in chunks) for rule in (None, RULE))
        benchmark.extra_info["taken"] = (early / free).tolist()
        until = {str(steps): lambda chunk, steps=steps: gz.rollout(model, chunk, steps=steps) for steps in range(1, model.steps + 1)}
        side_by_side(until, chunks, 40, 4)


@pytest.mark.benchmark(group="looks")
def test_few_images(side_by_side, card):
    """All looks of few images, which tells what images that leave a batch can save."""
    model, images = card
    chunks = whole_batches(images, max(FEW))
    with gz.inference(model):
        side_by_side({str(n): lambda chunk, n=n: gz.rollout(model, chunk[:n]) for n in FEW}, chunks, 40, 4)


def whole_batches(images, batch):
    starts = range(0, batch if SHORT else len(images) - batch + 1, batch)
    return [torch.stack(images[first : first + batch]) for first in starts]


def macs_of(model, chunks, options):
    meter, macs = gz.Meter(model), 0
    for chunk in chunks:
        trace = gz.rollout(model, chunk, record=gz.Record(meter=meter), **options)
        macs += int(trace.total_macs().sum())
    return macs
