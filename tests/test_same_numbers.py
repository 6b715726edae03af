"""The same numbers: predictions do not depend on how they are computed, but for images that are said to be ties."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from row_files import read_rows

import glimpsezoo as gz
from glimpsezoo.core.exits import Confidence
from glimpsezoo.core.rounding import tolerance
from glimpsezoo.data.limited import limited
from glimpsezoo.evaluation import jobs
from glimpsezoo.evaluation.jobs import Job
from glimpsezoo.evaluation.measuring import EvaluationConfig, run_job
from glimpsezoo.evaluation.rows import Rows
from glimpsezoo.evaluation.store import UnitStore
from glimpsezoo.measures.accuracy import accuracy_section, measured_text
from glimpsezoo.zoo.cards import find_card
from glimpsezoo.zoo.results import evidence

CARDS = ("mgnet.digits", "ranzato.digits")


def digits(count: int) -> Any:
    return limited(gz.open_data("digits"), count)


def measured(model: Any, data: Any, **config: Any) -> Rows:
    store = config.pop("store", None)
    return run_job(Job(model, "it", data), EvaluationConfig(**config), store).rows


@pytest.fixture
def threads() -> Any:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", CARDS)
def test_predictions_differ_between_batches_workers_threads_resumes_and_precisions_at_ties_only(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: Any
) -> None:
    monkeypatch.setattr(jobs, "UNIT", 10)
    model, data = gz.load(name).eval(), digits(16)
    one = measured(model, data, batch_size=16)
    others = [measured(model, data, batch_size=1), measured(model, data, batch_size=7, workers=1)]
    threads(2)
    others.append(measured(model, data, batch_size=10))
    threads(1)
    store = UnitStore(tmp_path)
    run_job(Job(model, "it", limited(data, 10)), EvaluationConfig(batch_size=5), store)
    others.append(measured(model, data, batch_size=8, store=store))
    assert one.tie.tolist().count(-1) == 0
    for other in others:
        assert other.id.tolist() == one.id.tolist()
        same = other.prediction[:, -1] == one.prediction[:, -1]
        assert (same | (one.tie == 1)).all()
    images = torch.stack([data[k].image for k in range(16)])
    with torch.no_grad():
        exact = gz.rollout(model.double(), images.double(), noise=gz.Noise.of(0, torch.from_numpy(one.id))).logits.argmax(1).numpy()
    assert ((exact == one.prediction[:, -1]) | (one.tie == 1)).all()


def twins(model: Any) -> None:
    """Let classes 0 and 1 have the same logit."""
    heads = [module for module in model.modules() if isinstance(module, torch.nn.Linear) and module.out_features == 10]
    with torch.no_grad():
        for head in heads:
            head.weight[1], head.bias[1] = head.weight[0], head.bias[0]


@pytest.mark.parametrize("name", ["mgnet.digits", "cnn4.digits"])
def test_images_whose_two_best_classes_are_as_near_as_rounding_are_counted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "UNIT", 40)
    model, data = gz.load(name).eval(), digits(80)
    assert 0 <= accuracy_section(measured(model, data)).ties <= 2  # pyright: ignore[reportOperatorIssue]
    twins(model)
    rows = measured(model, data)
    planted = np.isin(rows.prediction[:, -1], (0, 1))
    assert planted.sum() > 5
    assert (rows.tie[planted] == 1).all()
    assert (rows.tie == 1).sum() <= planted.sum() + 2
    assert accuracy_section(rows).ties == (rows.tie == 1).sum()


def test_what_is_not_a_plain_rollout_says_that_ties_are_unknown() -> None:
    model = gz.load("mgnet.digits").eval()
    job = Job(model, "it", digits(10), exit_rule=Confidence(0.5))
    assert run_job(job).rows.tie.tolist() == [-1] * 10


def test_a_model_that_cannot_be_copied_loses_no_row() -> None:
    model = gz.load("cnn4.digits").eval()
    model.lock = (each for each in ())  # which deepcopy refuses
    rows = measured(model, digits(10))
    assert (len(rows), rows.tie.tolist()) == (10, [-1] * 10)
    assert accuracy_section(rows).ties is None


def test_the_quicker_probes_find_what_those_in_double_precision_find() -> None:
    model = gz.load("mgnet.digits").eval()
    images = torch.stack([digits(16)[k].image for k in range(16)])
    quick, exact = tolerance(model, images, probed_in=torch.float32).logits, tolerance(model, images).logits
    assert torch.allclose(quick, exact, rtol=0.5)


def test_rows_and_results_from_before_ties_were_counted_are_read() -> None:
    card = find_card("mgnet.digits")
    assert card is not None
    stored, result = read_rows(card.folder / "rows.parquet"), evidence(card)
    assert stored is not None
    assert result is not None
    assert result.accuracy is not None
    assert (set(stored.rows.tie.tolist()), result.accuracy.ties) == ({-1}, None)
    assert "ounding" not in measured_text(result)
    some = result.model_copy(update={"accuracy": result.accuracy.model_copy(update={"ties": 3})})
    assert "Rounding may change the predictions of 3 images." in measured_text(some)
