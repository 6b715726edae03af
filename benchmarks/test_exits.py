"""Early exits: how much of the saved MACs is saved time, at a confidence of .9 on the test images of each card.

pytest benchmarks/test_exits.py --benchmark-json out.json && python benchmarks/ratios.py out.json

Cards on MNIST need its files: GLIMPSEZOO_DATA=FOLDER pytest benchmarks/test_exits.py.
"""

import os
from pathlib import Path

import pytest

import glimpsezoo as gz
from glimpsezoo.data import batches

CARDS = {
    "mgnet.digits": "digits", "pyramid-m3.digits": "digits", "mgnet.tmnist": "tmnist", "ranzato.jittered-mnist.2": "jittered-mnist",
}  # fmt: skip
IMAGES = {1: 64, 32: 1024, 256: 1024}
ROUNDS = 7


@pytest.fixture(scope="module", params=CARDS)
def card(request):
    """A model, and 1,024 test images."""
    folder = os.environ.get("GLIMPSEZOO_DATA")
    if not folder and CARDS[request.param] != "digits":
        pytest.skip("needs the files of MNIST in GLIMPSEZOO_DATA")
    data = gz.open_data(CARDS[request.param], data_dir=Path(folder) if folder else None)
    found = [batch.images for batch in batches(data, 0, min(1024, len(data)), 256)]
    return gz.load(request.param), [image for images in found for image in images]


@pytest.mark.benchmark(group="exits")
@pytest.mark.parametrize("batch", [1, 32, 256])
@pytest.mark.parametrize("how", ["all-steps", "exits", "exits-in-the-batch"])
def test_exits(benchmark, timed, card, how, batch):
    """Each round classifies the same images, batch after batch."""
    import torch

    model, images = card
    some = images[: IMAGES[batch]]
    chunks = [torch.stack(some[first : first + batch]) for first in range(0, len(some), batch)]
    rule = None if how == "all-steps" else gz.Confidence(threshold=0.9)
    meter = gz.Meter(model)

    def run(chunks):
        for chunk in chunks:
            gz.rollout(model, chunk, exit_rule=rule, compact=how == "exits")

    with gz.inference(model):
        macs = 0
        for chunk in chunks:
            trace = gz.rollout(model, chunk, exit_rule=rule, record=gz.Record(meter=meter))
            assert trace.macs is not None
            macs += sum(int(part.sum()) for part in trace.macs.stopped_at(trace.steps, classify_every_step=trace.rule_reads).values())
        benchmark.extra_info.update(macs=macs, batches=len(chunks))
        timed(run, [chunks], ROUNDS)
