"""Evaluation: rows equal those of a plain loop over the images, in units that are never measured twice and never lost."""

import dataclasses
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from toy_evaluation import IMAGES, Darker, MadeUp, assert_same, job_of, model_of
from toy_models import TASK, Counted, Peek, Tree

from glimpsezoo.core.exits import Confidence, ExitRule, Fixed
from glimpsezoo.core.macs import count_macs
from glimpsezoo.core.noise import Noise
from glimpsezoo.core.rollout import rollout
from glimpsezoo.data.base import Example, ImageData
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.evaluation import jobs, measuring
from glimpsezoo.evaluation.jobs import Job
from glimpsezoo.evaluation.measuring import EvaluationConfig, run_job
from glimpsezoo.evaluation.memory import auto_batch_size
from glimpsezoo.specs import Task


@pytest.fixture(autouse=True)
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """33 images are 4 units."""
    monkeypatch.setattr(jobs, "UNIT", 10)
    monkeypatch.setattr(measuring, "_POLL", 0.01)


def one_by_one(data: ImageData) -> Iterator[tuple[int, Example, dict[str, Any]]]:
    """The rows of every third image, measured one at a time with its own noise."""
    for index in range(0, len(data), 3):
        example = data[index]
        yield index, example, {"images": example.image[None], "noise": Noise.of(0, torch.tensor([example.id]))}


@pytest.mark.parametrize("kind", [Peek, Tree])
def test_rows_are_what_runs_of_each_image_stopped_at_each_step_give(kind: type[Counted]) -> None:
    job = job_of(kind)
    rows = run_job(job).rows
    assert len(rows) == IMAGES
    for index, example, alone in one_by_one(job.data):
        assert (rows.id[index], rows.group[index], rows.label[index]) == (example.id, example.group, example.label)
        for step in range(1, job.model.steps + 1):
            with torch.no_grad():
                logits = rollout(job.model, steps=step, **alone).logits[0].double()
            assert rows.prediction[index, step - 1] == logits.argmax()
            assert rows.confidence[index, step - 1] == pytest.approx(float(logits.softmax(0).max()), rel=1e-4)
            assert rows.nll[index, step - 1] == pytest.approx(
                float(F.cross_entropy(logits, torch.tensor(example.label))), rel=1e-3, abs=1e-5
            )
            ran = count_macs(lambda alone=alone, step=step: rollout(job.model, steps=step, **alone))
            assert rows.macs_by_step[index, step - 1] == ran.macs
        trace = rollout(job.model, **alone)
        assert rows.exit_step[index] == trace.last_step
        assert rows.regions[index].tolist() == trace.regions_by_step()[0].tolist()
        assert rows.macs[index] == rows.macs_by_step[index, -1] == rows.macs_by_phase[index].sum()
    assert rows.top5.all()  # of three classes
    if kind is Tree:
        assert len(set(rows.exit_step)) > 2, "the made-up trees should end at several steps"


@pytest.mark.parametrize(("kind", "threshold"), [(Peek, 0.7), (Tree, 0.95)])
def test_an_exit_rule_costs_what_ran(kind: type[Counted], threshold: float) -> None:
    rule = Confidence(threshold)
    job = job_of(kind, exit_rule=rule)
    rows = run_job(job).rows
    for index, _, alone in one_by_one(job.data):
        ran = count_macs(lambda alone=alone: rollout(job.model, exit_rule=rule, **alone))
        assert rows.macs[index] == ran.macs
        trace = rollout(job.model, exit_rule=rule, **alone)
        assert rows.exit_step[index] == trace.last_step
        assert rows.prediction[index, -1] == trace.logits[0].argmax()
        last = rows.exit_step[index] - 1
        assert (rows.prediction[index, last:] == rows.prediction[index, last]).all()
        assert (rows.regions[index, last + 1 :] == 0).all()
    assert len(set(rows.exit_step[::3])) > 2, "the made-up images should exit at several steps"


def test_five_largest_logits_hit_top5() -> None:
    class Ramp(Peek):
        """Logits 7, 6, 5 ... for classes 0, 1, 2 ..."""

        def classify(self, state: Any) -> Tensor:
            return 7.0 - torch.arange(8.0).expand(len(state.memory), 8)

    class Eight(MadeUp):
        def __getitem__(self, index: int) -> Example:
            return super().__getitem__(index)._replace(label=index % 8)

    task = replace(TASK, classes=tuple("abcdefgh"))
    data, model = Eight(), model_of(Ramp)
    data.task = model.task = task
    rows = run_job(Job(model, "toy", data)).rows
    assert (rows.top5 == (rows.label < 5)[:, None]).all()
    assert (rows.prediction == 0).all()


@pytest.mark.parametrize("kind", [Peek, Tree])
def test_batch_size_and_workers_change_nothing(kind: type[Counted]) -> None:
    first = run_job(job_of(kind), EvaluationConfig(batch_size=7)).rows
    assert_same(first, run_job(job_of(kind), EvaluationConfig(batch_size=64)).rows, kind)
    assert_same(first, run_job(job_of(kind), EvaluationConfig(batch_size=4, workers=2)).rows, kind)


def test_the_seed_reaches_models_that_draw() -> None:
    assert (run_job(job_of(Tree), EvaluationConfig(seed=1)).rows.regions != run_job(job_of(Tree)).rows.regions).any()


def test_a_budget_is_shorter_rows() -> None:
    whole, short = run_job(job_of(Tree)).rows, run_job(job_of(Tree, steps=2)).rows
    assert short.steps == 2
    np.testing.assert_array_equal(short.prediction, whole.prediction[:, :2])
    np.testing.assert_array_equal(short.macs, whole.macs_by_step[:, 1])


def test_the_model_is_measured_in_eval_mode_and_left_as_it_was() -> None:
    modes = set()

    class Notes(Peek):
        def classify(self, state: Any) -> Tensor:
            modes.add((self.training, torch.is_grad_enabled()))
            return super().classify(state)

    model = model_of(Notes)
    model.train()
    model.see.eval()
    run_job(Job(model, "toy", MadeUp()))
    assert modes == {(False, False)}
    assert (model.training, model.see.training, model.head.training) == (True, False, True)


def test_a_condition_changes_what_the_model_sees() -> None:
    dark, none = Darker(5), Darker(0)
    rows = run_job(job_of(condition=dark), EvaluationConfig(batch_size=7)).rows
    assert torch.cat([labels for labels, _, _ in dark.given]).tolist() == rows.label.tolist()
    assert torch.cat([ids for _, ids, _ in dark.given]).tolist() == rows.id.tolist()
    assert all(free for _, _, free in dark.given)  # attacks need gradients, and the model in eval mode
    assert_same(rows, run_job(job_of(condition=Darker(5)), EvaluationConfig(batch_size=64)).rows)
    clean = run_job(job_of()).rows
    assert_same(run_job(job_of(condition=none)).rows, dataclasses.replace(clean, tie=rows.tie))  # ties are looked for without conditions
    assert (rows.confidence != clean.confidence).all()


def test_wrong_input_is_one_clear_line() -> None:
    other = job_of()
    other.model.task = dataclasses.replace(TASK, classes=("a", "b", "d"))
    twins = MadeUp()
    twins.__class__ = type("Twins", (MadeUp,), {"__getitem__": lambda self, i: MadeUp.__getitem__(self, i)._replace(id=5)})
    cases: list[tuple[Job, EvaluationConfig, str]] = [
        (other, EvaluationConfig(), "classes"),
        (job_of(), EvaluationConfig(batch_size=0), "batch size"),
        (job_of(steps=9), EvaluationConfig(), "1 to 4 steps"),
        (job_of(steps=0), EvaluationConfig(), "1 to 4 steps"),
        (Job(model_of(Peek), "toy", twins), EvaluationConfig(), "unique id"),
    ]
    for job, config, text in cases:
        with pytest.raises(GlimpseZooError, match=text) as error:
            run_job(job, config)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("shape", "size"), [((1, 64, 64), 256), ((3, 224, 224), 16), ((1, 28, 28), 256), ((3, 64, 64), 256), ((3, 4000, 4000), 1)]
)
def test_auto_batch_size_falls_with_the_image(shape: tuple[int, int, int], size: int) -> None:
    assert auto_batch_size(Task(shape[1:], shape[0], ("a", "b")), torch.device("cpu")) == size


def test_the_base_conditions_and_rules_are_named() -> None:
    job = job_of()
    rules: list[ExitRule] = [job.exit_rule, Fixed()]
    assert {rule.name for rule in rules} == {"fixed"}
    assert (job.condition.name, job.condition.parameters) == ("clean", {})
