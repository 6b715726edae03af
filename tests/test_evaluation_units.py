"""Units of work: never measured twice, never lost, shared by processes, and named by everything that determines their outcome."""

import dataclasses
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from toy_evaluation import IMAGES, INFO, Config, Darker, MadeUp, assert_same, job_of, model_of
from toy_models import TASK, Peek, Tree

from glimpsezoo.conditions.base import BrokenConditionError, Clean
from glimpsezoo.core.exits import Confidence
from glimpsezoo.core.protocol import PaperMacs
from glimpsezoo.data.base import BadImageError
from glimpsezoo.errors import GlimpseZooError, out_of_memory
from glimpsezoo.evaluation import jobs, measuring
from glimpsezoo.evaluation.jobs import Job, unit_ids
from glimpsezoo.evaluation.measuring import Evaluation, EvaluationConfig, run_job, run_units
from glimpsezoo.evaluation.store import UnitStore


@pytest.fixture(autouse=True)
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """33 images are 4 units."""
    monkeypatch.setattr(jobs, "UNIT", 10)
    monkeypatch.setattr(measuring, "_POLL", 0.01)


def test_units_are_yielded_one_by_one_and_progress_never_falls() -> None:
    seen: list[int] = []
    units = list(run_units(job_of(), EvaluationConfig(batch_size=4), on_images=seen.append))
    assert [(unit.start, unit.stop) for unit in units] == [(0, 10), (10, 20), (20, 30), (30, 33)]
    for unit in units:
        assert unit.content is not None
        assert unit.content.rows.id.tolist() == [1000 + 7 * index for index in range(unit.start, unit.stop)]
    assert seen == sorted(seen)
    assert {4, 8, 10, 14, 33} <= set(seen)
    assert seen[-1] == IMAGES


def test_stopping_loses_the_unit_in_hand_and_going_on_gives_the_same_rows(tmp_path: Path) -> None:
    @dataclass
    class Stop(Clean):
        """Simulates Ctrl-C while images of the third unit are being processed."""

        pressed: bool = False

        def apply(self, images: Tensor, labels: Tensor, ids: Tensor, model: Any) -> Tensor:
            if self.pressed and (ids >= 1000 + 7 * 25).any():
                raise KeyboardInterrupt
            return images

    folder = UnitStore(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run_job(job_of(condition=Stop(pressed=True)), EvaluationConfig(batch_size=5), folder)
    job = job_of(condition=Stop())
    found = run_job(job, EvaluationConfig(batch_size=5), folder)
    assert (found.reused, found.done) == (2, 2)
    assert job.model.asked["start"] - 1 == IMAGES - 20  # and one image that the meter counted
    assert_same(found.rows, run_job(job_of()).rows)
    again = run_job(job_of(condition=Stop()), EvaluationConfig(batch_size=64), folder)
    assert (again.reused, again.done) == (4, 0)
    assert_same(again.rows, found.rows)
    assert [unit.batch_size for unit in again.measured] == [5] * 4  # of the process that measured it


def test_fresh_measures_again(tmp_path: Path) -> None:
    folder = UnitStore(tmp_path)
    run_job(job_of(), None, folder)
    found = run_job(job_of(), EvaluationConfig(fresh=True, batch_size=3), folder)
    assert (found.reused, found.done) == (0, 4)
    assert run_job(job_of(), None, folder).measured[0].batch_size == 3


def test_a_damaged_unit_is_measured_again(tmp_path: Path) -> None:
    folder, job = UnitStore(tmp_path), job_of()
    whole = run_job(job, None, folder).rows
    path = tmp_path / f"{unit_ids(job)[1]}.parquet"
    path.write_bytes(path.read_bytes()[:-40])
    found = run_job(job_of(), None, folder)
    assert (found.reused, found.done) == (3, 1)
    assert_same(found.rows, whole)


def test_what_another_process_measures_is_left_for_last_and_taken_from_it(tmp_path: Path) -> None:
    folder, job = UnitStore(tmp_path), job_of()
    theirs = next(iter(run_units(job)))
    first = unit_ids(job)[0]
    holds, seen = threading.Event(), threading.Event()

    def other() -> None:
        with folder.claim(first) as mine:
            assert mine
            holds.set()
            seen.wait(20)
            assert theirs.content is not None
            folder.write(first, theirs.content)

    thread = threading.Thread(target=other)
    thread.start()
    holds.wait(20)
    units = []
    for unit in run_units(job, None, folder):
        units.append(unit)
        if len(units) == 3:
            seen.set()
    thread.join()
    assert [unit.start for unit in units] == [10, 20, 30, 0]
    assert [unit.reused for unit in units] == [False, False, False, True]


def test_two_at_once_share_the_work(tmp_path: Path) -> None:
    found: list[Evaluation] = []
    jobs = job_of(), job_of()  # made before the threads start: making a model seeds torch, whose generator they would share
    threads = [threading.Thread(target=lambda job=job: found.append(run_job(job, None, UnitStore(tmp_path)))) for job in jobs]
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
    found = run_job(job_of(condition=Breaks(ValueError("broke"))), EvaluationConfig(batch_size=3), UnitStore(tmp_path))
    assert [(unit.start, unit.stop, str(unit.error)) for unit in found.failed] == [(10, 20, "broke")]
    assert found.failed[0].id
    assert (found.done, found.reused, len(found.rows)) == (3, 0, IMAGES - 10)
    whole = run_job(job_of()).rows
    np.testing.assert_array_equal(found.rows.prediction, np.delete(whole.prediction, range(10, 20), axis=0))
    mended = run_job(job_of(condition=Breaks(ValueError("broke"), at=-1)), None, UnitStore(tmp_path))
    assert (mended.done, mended.reused) == (1, 3)


def test_logits_that_are_not_finite_fail_their_unit() -> None:
    class Overflows(Peek):
        def classify(self, state: Any) -> Tensor:
            return super().classify(state) / 0.0

    found = run_job(Job(model_of(Overflows), "toy", MadeUp()))
    assert len(found.failed) == 4
    assert str(found.failed[0].error) == "the model's logits are not finite"
    assert found.rows.prediction.shape == (0, 4)


@dataclass
class Hollow(Darker):
    """Divides by zero."""

    def apply(self, images: Tensor, labels: Tensor, ids: Tensor, model: Any) -> Tensor:
        return images * float("nan")


def test_a_condition_that_is_broken_fails_its_units_and_is_named(tmp_path: Path) -> None:
    found = run_job(job_of(condition=Hollow(3)))
    assert len(found.failed) == 4
    assert "the images are not, as darker:3 gave them" in str(found.failed[0].error)
    found = run_job(job_of(condition=Breaks(BrokenConditionError("another shape"))), EvaluationConfig(batch_size=3), UnitStore(tmp_path))
    assert [(unit.start, unit.stop, str(unit.error)) for unit in found.failed] == [(10, 20, "another shape")]


def test_what_the_user_can_mend_ends_it(tmp_path: Path) -> None:
    with pytest.raises(GlimpseZooError, match="mend me"):
        run_job(job_of(condition=Breaks(GlimpseZooError("mend me"))), None, UnitStore(tmp_path))


@dataclass
class LittleMemory(Clean):
    """Runs out of memory with more than `most` images."""

    most: int = 4
    error: Exception = field(default_factory=lambda: torch.OutOfMemoryError("out of memory"))
    sizes: list[int] = field(default_factory=list)

    def apply(self, images: Tensor, labels: Tensor, ids: Tensor, model: Any) -> Tensor:
        if len(images) > self.most:
            raise self.error
        self.sizes.append(len(images))
        return images


def test_a_batch_too_large_for_the_device_is_halved() -> None:
    little = LittleMemory()
    found = run_job(job_of(condition=little))
    assert not found.failed
    assert max(little.sizes) == 4
    assert {unit.batch_size for unit in found.measured} == {4}
    assert_same(found.rows, run_job(job_of()).rows)


ALLOCATOR = "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError(ALLOCATOR), RuntimeError("not enough memory: you tried to allocate 9 bytes")]
)
def test_a_batch_too_large_for_the_memory_of_the_cpu_is_halved(error: Exception) -> None:
    little = LittleMemory(error=error)
    found = run_job(job_of(condition=little))
    assert not found.failed
    assert max(little.sizes) == 4
    assert_same(found.rows, run_job(job_of()).rows)


def test_torch_says_that_memory_ran_out_as_it_is_understood() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert out_of_memory(caught.value)
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_a_batch_size_that_was_asked_for_is_not_changed() -> None:
    found = run_job(job_of(condition=LittleMemory()), EvaluationConfig(batch_size=8))
    assert [unit.start for unit in found.failed] == [0, 10, 20]
    assert len(run_job(job_of(condition=LittleMemory(most=0))).failed) == 4  # not even one image fits


def test_bad_images_are_skipped_by_name_or_end_it(tmp_path: Path) -> None:
    data = MadeUp(bad=(3, 4, *range(30, 33)))
    job, folder = Job(model_of(Peek), "toy", data), UnitStore(tmp_path)
    found = run_job(job, EvaluationConfig(on_bad_image="skip", batch_size=2), folder)
    assert [line for unit in found.measured for line in unit.skipped] == [f"row {i} is no image" for i in data.bad]
    whole = run_job(job_of()).rows
    np.testing.assert_array_equal(found.rows.prediction, np.delete(whole.prediction, data.bad, axis=0))
    assert not found.failed
    with pytest.raises(BadImageError, match="row 3"):
        run_job(job, None, folder)  # although the store has a unit without the image
    assert run_job(job, EvaluationConfig(on_bad_image="skip"), folder).reused == 4


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

    found = run_job(Job(model_of(Printed), "toy", MadeUp()), None, UnitStore(tmp_path))
    unit = found.measured[-1]
    assert unit.paper_macs is not None
    assert (unit.paper_macs.convention, unit.paper_macs.by_step) == ("ours", (10.0, 20.0, 30.0, 40.0))
    assert "grid_sampler_2d" in unit.uncounted
    assert (unit.device, unit.workers) == ("cpu", 0)
    assert run_job(job_of()).measured[0].paper_macs is None
