"""What glimpses save: compaction under a confidence exit, and MGNet against its baseline.

pytest benchmarks/test_models.py --benchmark-json out.json && python benchmarks/ratios.py out.json
"""

import pytest
import torch

import glimpsezoo as gz
from glimpsezoo.data import batches, open_data
from glimpsezoo.zoo.names import data_spec


@pytest.fixture(scope="module")
def images():
    data = open_data(data_spec("digits"), "digits", "test", {})
    return next(batches(data, 0, 256, 256)).images


@torch.no_grad()
def run(model, images, **how):
    return gz.rollout(model, images, **how)


@pytest.mark.benchmark(group="compaction")
@pytest.mark.parametrize("compact", [False, True], ids=["in-the-batch", "compacted"])
def test_confidence_exit(benchmark, images, compact):
    """256 images under an exit at 90 % confidence. Images that exit stay in the batch, or leave it."""
    model = gz.load("mgnet.digits")
    trace = benchmark(lambda: run(model, images, exit_rule=gz.Confidence(threshold=0.9), compact=compact))
    assert 1 < trace.last_step.float().mean() < model.steps


@pytest.mark.benchmark(group="models")
@pytest.mark.parametrize("batch", [1, 64])
@pytest.mark.parametrize("name", ["cnn4", "mgnet"])
def test_model(benchmark, images, name, batch):
    """The baseline at the full 64 x 64 px, and MGNet with three glimpses of 16 x 16 px."""
    model = gz.load(f"{name}.digits")
    assert len(benchmark(lambda: run(model, images[:batch])).logits) == batch
