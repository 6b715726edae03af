"""Measuring: the rows are what a bare loop over the images gives, in units that are never done twice and never lost."""

import dataclasses
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from toys import TASK, Counted, Peek, Tree, batch_of_images, toy

from glimpsezoo import evaluation
from glimpsezoo.conditions import Clean, Condition
from glimpsezoo.cost import count_macs
from glimpsezoo.data.base import BadImageError, DataInfo, Example, ImageData
from glimpsezoo.driver import rollout
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.evaluation import Evaluation, EvaluationConfig, Job, auto_batch_size, evaluate, measure, unit_ids
from glimpsezoo.exits import Confidence, ExitRule, Fixed
from glimpsezoo.noise import Noise
from glimpsezoo.protocol import PaperMacs
from glimpsezoo.settings import Settings
from glimpsezoo.specs import Task
from glimpsezoo.store import Rows, UnitStore

IMAGES = 33
INFO = DataInfo(name="made-up", source="a seed", revision=None, fingerprint="1", split="test", transform="none")


@pytest.fixture(autouse=True)
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """33 images are 4 units."""
    monkeypatch.setattr(evaluation, "BLOCK", 10)
    monkeypatch.setattr(evaluation, "_POLL", 0.01)


class MadeUp(ImageData):
    """Three images of a source image; ids that are no positions."""

    def __init__(self, *, bad: tuple[int, ...] = (), info: DataInfo = INFO) -> None:
        self.info, self.task, self.bad = info, TASK, bad
        self.images = batch_of_images(IMAGES)

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, index: int) -> Example:
        if index in self.bad:
            raise BadImageError(f"row {index} is no image")
        return Example(self.images[index], label=index % 3, id=1000 + 7 * index, group=index // 3)


class Config(Settings):
    width: int = 3


def model_of(kind: type[Counted], **settings: int) -> Counted:
    model = toy(kind, **settings)
    model.config = Config()
    return model


def job_of(kind: type[Counted] = Peek, **parts: Any) -> Job:
    return Job(model_of(kind), "toy", MadeUp(), **parts)


def assert_same(a: Rows, b: Rows) -> None:
    for f in fields(Rows):
        np.testing.assert_allclose(getattr(a, f.name), getattr(b, f.name), rtol=1e-5, atol=1e-6, err_msg=f.name)


def one_by_one(data: ImageData) -> Iterator[tuple[int, Example, dict[str, Any]]]:
    """Every third image alone, with its own noise."""
    for index in range(0, len(data), 3):
        example = data[index]
        yield index, example, {"images": example.image[None], "noise": Noise.of(0, torch.tensor([example.id]))}


@pytest.mark.parametrize("kind", [Peek, Tree])
def test_rows_are_what_runs_of_each_image_stopped_at_each_step_give(kind: type[Counted]) -> None:
    job = job_of(kind)
    rows = evaluate(job).rows
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
    rows = evaluate(job).rows
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
    rows = evaluate(Job(model, "toy", data)).rows
    assert (rows.top5 == (rows.label < 5)[:, None]).all()
    assert (rows.prediction == 0).all()


@pytest.mark.parametrize("kind", [Peek, Tree])
def test_batch_size_and_workers_change_nothing(kind: type[Counted]) -> None:
    first = evaluate(job_of(kind), EvaluationConfig(batch_size=7)).rows
    assert_same(first, evaluate(job_of(kind), EvaluationConfig(batch_size=64)).rows)
    assert_same(first, evaluate(job_of(kind), EvaluationConfig(batch_size=4, workers=2)).rows)


def test_the_seed_reaches_models_that_draw() -> None:
    assert (evaluate(job_of(Tree), EvaluationConfig(seed=1)).rows.regions != evaluate(job_of(Tree)).rows.regions).any()


def test_a_budget_is_shorter_rows() -> None:
    whole, short = evaluate(job_of(Tree)).rows, evaluate(job_of(Tree, steps=2)).rows
    assert short.steps == 2
    np.testing.assert_array_equal(short.prediction, whole.prediction[:, :2])
    np.testing.assert_array_equal(short.macs, whole.macs_by_step[:, 1])


def test_units_are_yielded_one_by_one_and_progress_never_falls() -> None:
    seen: list[int] = []
    blocks = list(measure(job_of(), EvaluationConfig(batch_size=4), on_images=seen.append))
    assert [(block.start, block.stop) for block in blocks] == [(0, 10), (10, 20), (20, 30), (30, 33)]
    assert seen == sorted(seen)
    assert {4, 8, 10, 14, 33} <= set(seen)
    assert seen[-1] == IMAGES


def test_stopping_loses_the_unit_in_hand_and_going_on_gives_the_same_rows(tmp_path: Path) -> None:
    @dataclass
    class Stop(Clean):
        """The user's Ctrl-C while images of the third unit are in hand."""

        pressed: bool = False

        def apply(self, images: Tensor, labels: Tensor, ids: Tensor, model: Any) -> Tensor:
            if self.pressed and (ids >= 1000 + 7 * 25).any():
                raise KeyboardInterrupt
            return images

    folder = UnitStore(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        evaluate(job_of(condition=Stop(pressed=True)), EvaluationConfig(batch_size=5), folder)
    job = job_of(condition=Stop())
    found = evaluate(job, EvaluationConfig(batch_size=5), folder)
    assert (found.reused, found.done) == (2, 2)
    assert job.model.asked["start"] - 1 == IMAGES - 20  # and one image that the meter counted
    assert_same(found.rows, evaluate(job_of()).rows)
    again = evaluate(job_of(condition=Stop()), EvaluationConfig(batch_size=64), folder)
    assert (again.reused, again.done) == (4, 0)
    assert_same(again.rows, found.rows)
    assert [unit.batch_size for unit in again.measured] == [5] * 4  # who measured it


def test_fresh_measures_again(tmp_path: Path) -> None:
    folder = UnitStore(tmp_path)
    evaluate(job_of(), None, folder)
    found = evaluate(job_of(), EvaluationConfig(fresh=True, batch_size=3), folder)
    assert (found.reused, found.done) == (0, 4)
    assert evaluate(job_of(), None, folder).measured[0].batch_size == 3


def test_a_damaged_unit_is_measured_again(tmp_path: Path) -> None:
    folder, job = UnitStore(tmp_path), job_of()
    whole = evaluate(job, None, folder).rows
    path = folder.path(unit_ids(job)[1])
    path.write_bytes(path.read_bytes()[:-40])
    found = evaluate(job_of(), None, folder)
    assert (found.reused, found.done) == (3, 1)
    assert_same(found.rows, whole)


def test_what_another_process_measures_is_left_for_last_and_taken_from_it(tmp_path: Path) -> None:
    folder, job = UnitStore(tmp_path), job_of()
    theirs = next(iter(measure(job)))
    first = unit_ids(job)[0]
    holds, seen = threading.Event(), threading.Event()

    def other() -> None:
        with folder.claim(first) as mine:
            assert mine
            holds.set()
            seen.wait(20)
            assert theirs.unit is not None
            folder.write(first, theirs.unit)

    thread = threading.Thread(target=other)
    thread.start()
    holds.wait(20)
    blocks = []
    for block in measure(job, None, folder):
        blocks.append(block)
        if len(blocks) == 3:
            seen.set()
    thread.join()
    assert [block.start for block in blocks] == [10, 20, 30, 0]
    assert [block.reused for block in blocks] == [False, False, False, True]


def test_two_at_once_share_the_work(tmp_path: Path) -> None:
    found: list[Evaluation] = []
    threads = [threading.Thread(target=lambda: found.append(evaluate(job_of(), None, UnitStore(tmp_path)))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(one.done for one in found) == 4
    assert sum(one.reused for one in found) == 4
    assert_same(found[0].rows, found[1].rows)


@dataclass
class Breaks(Clean):
    """Raises at the image of id 1000 + 7 * at."""

    error: Exception
    at: int = 12

    def apply(self, images: Tensor, labels: Tensor, ids: Tensor, model: Any) -> Tensor:
        if (ids == 1000 + 7 * self.at).any():
            raise self.error
        return images


def test_an_error_fails_its_unit_and_the_others_go_on(tmp_path: Path) -> None:
    found = evaluate(job_of(condition=Breaks(ValueError("broke"))), EvaluationConfig(batch_size=3), UnitStore(tmp_path))
    assert [(block.start, block.stop, str(block.error)) for block in found.failed] == [(10, 20, "broke")]
    assert found.failed[0].id
    assert (found.done, found.reused, len(found.rows)) == (3, 0, IMAGES - 10)
    whole = evaluate(job_of()).rows
    np.testing.assert_array_equal(found.rows.prediction, np.delete(whole.prediction, range(10, 20), axis=0))
    mended = evaluate(job_of(condition=Breaks(ValueError("broke"), at=-1)), None, UnitStore(tmp_path))
    assert (mended.done, mended.reused) == (1, 3)


def test_logits_that_are_not_finite_fail_their_unit() -> None:
    class Overflows(Peek):
        def classify(self, state: Any) -> Tensor:
            return super().classify(state) / 0.0

    found = evaluate(Job(model_of(Overflows), "toy", MadeUp()))
    assert len(found.failed) == 4
    assert "finite" in str(found.failed[0].error)
    assert found.rows.prediction.shape == (0, 4)


def test_what_the_user_can_mend_ends_it(tmp_path: Path) -> None:
    with pytest.raises(GlimpseZooError, match="mend me"):
        evaluate(job_of(condition=Breaks(GlimpseZooError("mend me"))), None, UnitStore(tmp_path))


@dataclass
class LittleMemory(Clean):
    """Holds no more than `most` images."""

    most: int = 4
    sizes: list[int] = field(default_factory=list)

    def apply(self, images: Tensor, labels: Tensor, ids: Tensor, model: Any) -> Tensor:
        if len(images) > self.most:
            raise torch.OutOfMemoryError("out of memory")
        self.sizes.append(len(images))
        return images


def test_a_batch_too_large_for_the_device_is_halved() -> None:
    little = LittleMemory()
    found = evaluate(job_of(condition=little))
    assert not found.failed
    assert max(little.sizes) == 4
    assert {unit.batch_size for unit in found.measured} == {4}
    assert_same(found.rows, evaluate(job_of()).rows)


def test_a_batch_size_that_was_asked_for_is_not_changed() -> None:
    found = evaluate(job_of(condition=LittleMemory()), EvaluationConfig(batch_size=8))
    assert [block.start for block in found.failed] == [0, 10, 20]
    assert len(evaluate(job_of(condition=LittleMemory(most=0))).failed) == 4  # not even one image fits


def test_bad_images_are_skipped_by_name_or_end_it(tmp_path: Path) -> None:
    data = MadeUp(bad=(3, 4, *range(30, 33)))
    job, folder = Job(model_of(Peek), "toy", data), UnitStore(tmp_path)
    found = evaluate(job, EvaluationConfig(on_bad_image="skip", batch_size=2), folder)
    assert [line for unit in found.measured for line in unit.skipped] == [f"row {i} is no image" for i in data.bad]
    whole = evaluate(job_of()).rows
    np.testing.assert_array_equal(found.rows.prediction, np.delete(whole.prediction, data.bad, axis=0))
    assert not found.failed
    with pytest.raises(BadImageError, match="row 3"):
        evaluate(job, None, folder)  # though a unit without it is stored
    assert evaluate(job, EvaluationConfig(on_bad_image="skip"), folder).reused == 4


def test_the_model_is_measured_in_eval_mode_and_left_as_it_was() -> None:
    modes = set()

    class Notes(Peek):
        def classify(self, state: Any) -> Tensor:
            modes.add((self.training, torch.is_grad_enabled()))
            return super().classify(state)

    model = model_of(Notes)
    model.train()
    model.see.eval()
    evaluate(Job(model, "toy", MadeUp()))
    assert modes == {(False, False)}
    assert (model.training, model.see.training, model.head.training) == (True, False, True)


@dataclass
class Darker(Condition):
    """Darkens by the image's own noise, and notes what it was given."""

    severity: int
    given: list[tuple[Tensor, Tensor, bool]] = field(default_factory=list)
    name = "darker"

    @property
    def parameters(self) -> dict[str, Any]:
        return {"severity": self.severity}

    def apply(self, images: Tensor, labels: Tensor, ids: Tensor, model: Any) -> Tensor:
        self.given.append((labels, ids, torch.is_grad_enabled() and not model.training))
        shade = Noise.of(0, ids).uniform(0, 1)[:, :, None, None]  # [B, 1, 1, 1]
        return images * shade ** (0.5 * self.severity)


def test_a_condition_changes_what_the_model_sees() -> None:
    dark, none = Darker(5), Darker(0)
    rows = evaluate(job_of(condition=dark), EvaluationConfig(batch_size=7)).rows
    assert torch.cat([labels for labels, _, _ in dark.given]).tolist() == rows.label.tolist()
    assert torch.cat([ids for _, ids, _ in dark.given]).tolist() == rows.id.tolist()
    assert all(free for _, _, free in dark.given)  # an attack needs gradients of a model in eval mode
    assert_same(rows, evaluate(job_of(condition=Darker(5)), EvaluationConfig(batch_size=64)).rows)
    assert_same(evaluate(job_of(condition=none)).rows, evaluate(job_of()).rows)
    assert (rows.confidence != evaluate(job_of()).rows.confidence).all()


def test_a_units_id_follows_from_all_that_decides_its_outcome_and_nothing_else() -> None:
    job = job_of()
    first = unit_ids(job)
    assert len(set(first)) == 4
    assert unit_ids(replace(job, name="another")) == first
    assert unit_ids(replace(job, model=model_of(Peek))) == first  # the same weights in another object
    trained, set_otherwise, another_task = (model_of(Peek) for _ in range(3))
    torch.nn.init.zeros_(trained.get_parameter("head.weight"))
    set_otherwise.config = Config(width=4)
    another_task.task = dataclasses.replace(TASK, mean=(0.5,))
    others = {
        "weights": unit_ids(replace(job, model=trained)),
        "config": unit_ids(replace(job, model=set_otherwise)),
        "task": unit_ids(replace(job, model=another_task)),
        "class": unit_ids(replace(job, model=model_of(Tree))),
        "data": unit_ids(replace(job, data=MadeUp(info=replace(INFO, fingerprint="2")))),
        "split": unit_ids(replace(job, data=MadeUp(info=replace(INFO, split="calibration")))),
        "condition": unit_ids(replace(job, condition=Darker(1))),
        "severity": unit_ids(replace(job, condition=Darker(2))),
        "rule": unit_ids(replace(job, exit_rule=Confidence(0.9))),
        "threshold": unit_ids(replace(job, exit_rule=Confidence(0.8))),
        "steps": unit_ids(replace(job, steps=2)),
        "seed": unit_ids(job, seed=1),
    }
    assert len({tuple(first), *(tuple(ids) for ids in others.values())}) == 1 + len(others), others


def test_a_unit_remembers_what_the_meter_and_the_paper_say(tmp_path: Path) -> None:
    class Printed(Peek):
        def paper_macs(self, step: int) -> PaperMacs:
            return PaperMacs("ours", 10.0 * step)

    found = evaluate(Job(model_of(Printed), "toy", MadeUp()), None, UnitStore(tmp_path))
    unit = found.measured[-1]
    assert unit.paper_macs is not None
    assert (unit.paper_macs.convention, unit.paper_macs.by_step) == ("ours", (10.0, 20.0, 30.0, 40.0))
    assert "grid_sampler_2d" in unit.uncounted
    assert (unit.device, unit.workers) == ("cpu", 0)
    assert evaluate(job_of()).measured[0].paper_macs is None


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
        (Job(model_of(Peek), "toy", twins), EvaluationConfig(), "an id of its own"),
    ]
    for job, config, text in cases:
        with pytest.raises(GlimpseZooError, match=text) as error:
            evaluate(job, config)
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
