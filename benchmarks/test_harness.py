"""What measuring costs: the harness against a bare loop over the same loader, and runs with and without counting MACs.

pytest benchmarks/test_harness.py --benchmark-json out.json && python benchmarks/ratios.py out.json
"""

import pytest

import glimpsezoo as gz
from glimpsezoo.data import batches, open_data
from glimpsezoo.evaluation.jobs import Job
from glimpsezoo.evaluation.measuring import EvaluationConfig, run_job
from glimpsezoo.zoo.names import data_spec

IMAGES, BATCH = 1000, 256  # the batch size that `run` takes for images of this size
ROUNDS = 40


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


def bare_loop(model, digits):
    """Load, run and argmax, as one would write it by hand."""
    right = 0
    with gz.inference(model):
        for batch in batches(digits, 0, IMAGES, BATCH):
            right += int((gz.rollout(model, batch.images).logits.argmax(1) == batch.labels).sum())
    assert right > IMAGES / 2


def harness(model, digits):
    """Accuracy, NLL, confidence, regions and MACs of every step, one row per image."""
    found = run_job(Job(model, "model", First(digits, IMAGES)), EvaluationConfig(batch_size=BATCH))
    assert len(found.rows) == IMAGES


@pytest.mark.benchmark(group="harness")
def test_harness(side_by_side, model, digits):
    side_by_side({"bare loop": lambda _: bare_loop(model, digits), "harness": lambda _: harness(model, digits)}, [None], ROUNDS)


@pytest.mark.benchmark(group="counting")
def test_cost_counting(side_by_side, model, digits):
    """A batch without a meter, and with one that already knows its shapes."""
    meter = gz.Meter(model)
    images = [batch.images for batch in batches(digits, 0, 4 * BATCH, BATCH)]
    with gz.inference(model):
        side_by_side(
            {
                "uncounted": lambda batch: gz.rollout(model, batch),
                "counted": lambda batch: gz.rollout(model, batch, record=gz.Record(meter=meter)),
            },
            images,
            ROUNDS,
        )
