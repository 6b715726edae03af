"""What measuring costs: the harness against a bare loop over the same loader, and runs with and without counting MACs.

pytest benchmarks/test_harness.py --benchmark-json out.json && python benchmarks/ratios.py out.json
"""

import pytest
import torch

import glimpsezoo as gz
from glimpsezoo.data import batches, open_data
from glimpsezoo.evaluation.jobs import EvaluationConfig, Job, run_job
from glimpsezoo.zoo.names import data_spec

IMAGES, BATCH = 1000, 256  # what `run` takes for images of this size


@pytest.fixture(scope="module")
def digits():
    data = open_data(data_spec("digits"), "digits", "test", {})
    data.task  # noqa: B018 - opens the data
    return data


@pytest.fixture(scope="module", params=["mgnet", "cnn4"])
def model(request):
    return gz.load(f"{request.param}.digits")


class First:
    """The first `n` images of a data set, as a data set."""

    def __init__(self, data, n):
        self.data, self.n, self.info, self.task = data, n, data.info, data.task

    def __len__(self):
        return self.n

    def examples(self, start, stop):
        return self.data.examples(start, stop)


@pytest.mark.benchmark(group="harness")
def test_bare_loop(benchmark, model, digits):
    """Load, run and argmax, as one would write it by hand."""

    def loop():
        right = 0
        with gz.inference(model):
            for batch in batches(digits, 0, IMAGES, BATCH):
                right += int((gz.rollout(model, batch.images).logits.argmax(1) == batch.labels).sum())
        return right

    assert benchmark(loop) > IMAGES / 2


@pytest.mark.benchmark(group="harness")
def test_harness(benchmark, model, digits):
    """Accuracy, NLL, confidence, regions and MACs of every step, one row per image."""
    job = Job(model, "model", First(digits, IMAGES))
    found = benchmark(lambda: run_job(job, EvaluationConfig(batch_size=BATCH)))
    assert len(found.rows) == IMAGES


@pytest.mark.benchmark(group="counting")
@pytest.mark.parametrize("counted", [False, True], ids=["uncounted", "counted"])
def test_cost_counting(benchmark, model, digits, counted):
    """A batch without a meter, and with one that already knows its shapes."""
    batch = next(batches(digits, 0, BATCH, BATCH))
    meter = gz.Meter(model) if counted else None

    @torch.no_grad()
    def run():
        return gz.rollout(model, batch.images, record=gz.Record(meter=meter))

    run()
    assert len(benchmark(run).logits) == BATCH
