"""The work of a run in portions: who takes what, what is done once, and what comes of it if workers die."""

import pickle
import threading
from collections.abc import Hashable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch
from toy_evaluation import IMAGES, Darker, MadeUp, assert_same, job_of

from glimpsezoo.conditions.base import Clean, Remembered
from glimpsezoo.data.base import BadImageError
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.evaluation import jobs, measuring
from glimpsezoo.evaluation.jobs import Job
from glimpsezoo.evaluation.measuring import EvaluationConfig, run_job
from glimpsezoo.evaluation.plan import Plan, Planned, PlannedFinding, evaluation_of
from glimpsezoo.evaluation.store import UnitStore
from glimpsezoo.measures.base import Bench
from glimpsezoo.run import scheduling
from glimpsezoo.run.engines import choosing, shipping
from glimpsezoo.run.engines.base import Engine, ThisProcess, WorkerDiedError
from glimpsezoo.run.portions import Doer, Outcome, Portion, portions_of
from glimpsezoo.run.scheduling import Scheduler
from glimpsezoo.schema import Section
from glimpsezoo.zoo.plugins import registry

CONFIG = EvaluationConfig(batch_size=5)


@pytest.fixture(autouse=True)
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """33 images are 4 units."""
    monkeypatch.setattr(jobs, "UNIT", 10)
    monkeypatch.setattr(shipping, "UNIT", 10)
    monkeypatch.setattr(scheduling, "POLL", 0.01)


class Found(Section):
    number: int


def evaluation(job: Job, key: Hashable = "clean", **more: Any) -> tuple[str, Planned]:
    return "m", evaluation_of(job, index=0, key=key, label=str(key), seed=0, **more)


def finding(find: Any, *, name: str | None = "f", key: Hashable = "finding") -> tuple[str, Planned]:
    identity = None if name is None else {"name": name}
    return "m", PlannedFinding(index=0, key=key, label="finding", images=3, identity=identity, kind=Found, find=find)


def bench_of(job: Job) -> Bench:
    device = torch.device("cpu")
    return Bench([job.name], [job.model], job.data, job.data, seed=0, device=device, on_bad_image="fail", catalogue=registry())


def sharing_of(plan: Plan, folder: Path, config: EvaluationConfig = CONFIG) -> Scheduler:
    store = UnitStore(folder)

    def stored(planned: PlannedFinding) -> Section | None:
        text = store.read_finding(planned.stored_as or "")
        return None if text is None else Found.model_validate_json(text)

    return Scheduler(plan, config, store, stored)


def shared(plan: Plan, job: Job, folder: Path, engine: Engine | None = None) -> Outcome:
    work = sharing_of(plan, folder)
    return work.run(engine or ThisProcess(Doer(plan, bench_of(job), CONFIG), work.keep, lambda *_: None))


@dataclass
class Copies(Engine):
    """Workers that have copies of the plan, as other processes do. Each portion in `deadly` kills its worker so often."""

    doer: Doer
    slots: int = 3
    deadly: dict[Portion, int] = field(default_factory=dict)
    given: list[Portion] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pool, self.payload = ThreadPoolExecutor(self.slots), shipping.packed(self.doer)

    def submit(self, portion: Portion, given: Outcome) -> Future[Outcome]:
        self.given.append(portion)
        return self.pool.submit(self._do, portion, pickle.dumps(given))

    def _do(self, portion: Portion, given: bytes) -> Outcome:
        if self.deadly.get(portion, 0) > 0:
            self.deadly[portion] -= 1
            raise WorkerDiedError("a worker process ended")
        return pickle.loads(cloudpickle.dumps(pickle.loads(self.payload).do(portion, pickle.loads(given))))

    def close(self, *, hurry: bool) -> None:
        self.pool.shutdown(cancel_futures=hurry)


# Portions


def test_each_unit_of_a_piece_is_a_portion_and_pieces_that_share_images_are_taken_together() -> None:
    job = job_of()
    condition = Remembered(Darker(2))
    dark = [evaluation(job_of(condition=condition), ("dark", k), together="dark") for k in range(2)]
    plan = [evaluation(job), *dark, finding(lambda: Found(number=1)), finding(lambda: Found(number=2), name=None)]
    spans = [(0, 10), (10, 20), (20, 30), (30, 33)]
    clean, both = [Portion((0,), span) for span in spans], [Portion((1, 2), span) for span in spans]
    assert portions_of(plan) == [*clean, *both, Portion((3,))]  # a finding that is never stored is no portion


def test_pieces_that_may_become_superfluous_are_one_portion() -> None:
    plan = [evaluation(job_of(), k, together="rounds", unless=lambda done: len(done) > 1) for k in range(3)]
    assert portions_of(plan) == [Portion((0, 1, 2))]


# Sharing


def test_workers_find_what_one_process_finds(tmp_path: Path) -> None:
    job = job_of()

    def plan() -> Plan:
        condition = Remembered(Darker(3))
        dark = [evaluation(job_of(condition=condition), ("dark", k), together="dark") for k in range(2)]
        return [evaluation(job), *dark, finding(lambda: Found(number=7))]

    alone = shared(plan(), job, tmp_path / "alone")
    with Copies(Doer(plan(), bench_of(job), CONFIG)) as engine:
        found = shared(plan(), job, tmp_path / "shared", engine)
    assert found.units.keys() == alone.units.keys()
    assert len(found.units) == 8  # the two dark evaluations are the same
    for name, unit in alone.units.items():
        other = found.units[name]
        assert not isinstance(unit, Exception)
        assert not isinstance(other, Exception)
        for column in ("prediction", "nll", "macs"):
            np.testing.assert_array_equal(getattr(unit.rows, column), getattr(other.rows, column))
    assert found.findings == alone.findings == {3: Found(number=7)}
    names = {path.name for path in (tmp_path / "alone").iterdir()}
    assert {path.name for path in (tmp_path / "shared").iterdir()} == names
    rows = run_job(job, CONFIG, UnitStore(tmp_path / "shared"))
    assert (rows.done, rows.reused) == (0, 4)
    assert_same(rows.rows, run_job(job_of()).rows)


def test_what_is_done_is_not_given_to_a_worker_again(tmp_path: Path) -> None:
    job = job_of()
    plan = [evaluation(job), finding(lambda: Found(number=7))]
    shared(plan, job, tmp_path)
    work = sharing_of(plan, tmp_path)
    assert work.left() == []
    path = next(tmp_path.glob("*.parquet"))
    path.unlink()
    assert len(work.left()) == 1
    with Copies(Doer(plan, bench_of(job), CONFIG)) as engine:
        found = work.run(engine)
    assert len(engine.given) == 1
    assert list(found.units) == [path.stem]
    assert path.exists()


def test_fresh_measures_all_again_and_knows_what_it_has_measured(tmp_path: Path) -> None:
    job = job_of()
    plan = [evaluation(job)]
    shared(plan, job, tmp_path)
    fresh = EvaluationConfig(batch_size=5, fresh=True)
    work = sharing_of(plan, tmp_path, fresh)
    assert len(work.left()) == 4
    found = work.run(ThisProcess(Doer(plan, bench_of(job), fresh), work.keep, lambda *_: None))
    assert len(found.units) == 4
    assert work.left() == []


def test_what_another_process_measures_is_left_for_last(tmp_path: Path) -> None:
    job = job_of()
    plan, other = [evaluation(job)], UnitStore(tmp_path)
    first, *rest = jobs.unit_ids(job)
    theirs = next(iter(measuring.run_units(job, CONFIG)))
    holds, seen = threading.Event(), threading.Event()

    def measure() -> None:
        with other.claim(first) as mine:
            assert mine
            holds.set()
            seen.wait(20)
            assert theirs.content is not None
            other.write(first, theirs.content)

    thread = threading.Thread(target=measure)
    thread.start()
    holds.wait(20)
    work = sharing_of(plan, tmp_path)
    done: list[Portion] = []

    def on_portion(portion: Portion) -> None:
        done.append(portion)
        if len(done) == 3:
            seen.set()

    found = work.run(ThisProcess(Doer(plan, bench_of(job), CONFIG), work.keep, lambda *_: None), on_portion)
    thread.join()
    assert list(found.units) == rest
    assert [portion.span for portion in done] == [(10, 20), (20, 30), (30, 33), (0, 10)]


def test_a_superfluous_round_is_neither_measured_nor_asked_for_again(tmp_path: Path) -> None:
    def enough(done: Mapping[Hashable, Any]) -> bool:
        return 1 in done and len(done[1].rows) == IMAGES

    job = job_of()
    plan = [evaluation(job_of(condition=Darker(k)), k, together="rounds", unless=enough) for k in range(1, 4)]
    with Copies(Doer(plan, bench_of(job), CONFIG)) as engine:
        found = shared(plan, job, tmp_path, engine)
        assert len(found.units) == 4  # of the first round
        assert len(engine.given) == 1
        shared(plan, job, tmp_path, engine)
        assert len(engine.given) == 1


def test_a_worker_that_dies_loses_its_portion_to_another(tmp_path: Path) -> None:
    job = job_of()
    plan = [evaluation(job)]
    with Copies(Doer(plan, bench_of(job), CONFIG), deadly={Portion((0,), (10, 20)): 2}) as engine:
        found = shared(plan, job, tmp_path, engine)
    assert len(found.units) == 4
    assert engine.given.count(Portion((0,), (10, 20))) == 3
    assert len(engine.given) == 6


def test_a_portion_that_kills_every_worker_ends_the_run_in_one_line(tmp_path: Path) -> None:
    job = job_of()
    plan = [evaluation(job)]
    with (
        pytest.raises(GlimpseZooError, match=r"clean \(m\), got 3 that died of it .*repeat the command"),
        Copies(Doer(plan, bench_of(job), CONFIG), deadly={Portion((0,), (10, 20)): 9}) as engine,
    ):
        shared(plan, job, tmp_path, engine)
    assert UnitStore(tmp_path).has(jobs.unit_ids(job)[0])  # what was finished is kept
    with UnitStore(tmp_path).claim(jobs.unit_ids(job)[1]) as mine:
        assert mine  # and nothing is claimed any more


class Breaks(Clean):
    """Raises at one image."""

    name = "breaks"

    def apply(self, images: Any, labels: Any, ids: Any, model: Any) -> Any:
        if (ids == 1000 + 7 * 12).any():
            raise ValueError("broke")
        return images


def test_an_error_of_a_worker_fails_its_unit_alone_and_is_not_tried_again(tmp_path: Path) -> None:
    job = job_of(condition=Breaks())
    plan = [evaluation(job)]
    with Copies(Doer(plan, bench_of(job), CONFIG)) as engine:
        found = shared(plan, job, tmp_path, engine)
    assert len(engine.given) == 4
    kept = run_job(job, CONFIG, UnitStore(tmp_path), known=found.units)
    assert [(unit.start, str(unit.error)) for unit in kept.failed] == [(10, "broke")]
    assert (kept.done, kept.reused, len(kept.rows)) == (3, 0, IMAGES - 10)


def test_an_error_of_a_finding_fails_it_alone_and_nothing_of_it_is_stored(tmp_path: Path) -> None:
    def breaks() -> None:
        raise ValueError("broke")

    job = job_of()
    plan = [evaluation(job), finding(breaks, name="f", key="broken"), finding(lambda: Found(number=2), name="g")]
    with Copies(Doer(plan, bench_of(job), CONFIG)) as engine:
        found = shared(plan, job, tmp_path, engine)
    assert str(found.findings[1]) == "broke"
    assert found.findings[2] == Found(number=2)
    assert len(found.units) == 4
    names = [planned.stored_as or "" for _, planned in plan[1:] if isinstance(planned, PlannedFinding)]
    assert [UnitStore(tmp_path).read_finding(name) is None for name in names] == [True, False]


def test_an_image_that_cannot_be_read_ends_the_run_wherever_it_is_read(tmp_path: Path) -> None:
    bad = MadeUp(bad=(12,))
    job = Job(job_of().model, "toy", bad)
    with pytest.raises(BadImageError, match="row 12 is no image"), Copies(Doer([evaluation(job)], bench_of(job), CONFIG)) as engine:
        shared([evaluation(job)], job, tmp_path, engine)


def test_what_was_found_at_the_same_time_as_an_error_is_kept(tmp_path: Path) -> None:
    class Together(ThisProcess):
        """All portions end before anybody looks; the first with an error."""

        slots = 4

        def submit(self, portion: Portion, given: Outcome) -> Future[Outcome]:
            if portion.span and portion.span[0] == 0:
                future = Future[Outcome]()
                future.set_exception(GlimpseZooError("a bad image"))
                return future
            return super().submit(portion, given)

    job = job_of()
    work = sharing_of([evaluation(job)], tmp_path)
    with pytest.raises(GlimpseZooError, match="a bad image"):
        work.run(Together(Doer(work.plan, bench_of(job), CONFIG), lambda *_: None, lambda *_: None))
    assert len(list(tmp_path.rglob("*.parquet"))) == 3


def test_notes_of_a_finding_come_back_with_it(tmp_path: Path) -> None:
    job = job_of()
    bench = bench_of(job)

    def impossible() -> None:
        bench.note(0, "there is no such thing")

    plan = [finding(impossible)]
    with Copies(Doer(plan, bench, CONFIG)) as engine:
        found = shared(plan, job, tmp_path, engine)
    assert found.findings == {0: None}
    assert found.notes == [(0, "there is no such thing")]
    assert not bench.notes  # the worker's bench was a copy


# Which engine


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "cores", lambda: 8)


@pytest.mark.usefixtures("eight_cores")
def test_processes_are_chosen_where_they_are_measured_to_pay() -> None:
    def never() -> list[float]:
        raise AssertionError("a short run is not worth a measurement")

    assert choosing.fastest([1.0] * 20, never).kind == "threads"
    assert choosing.fastest([100.0], never).kind == "threads"  # one portion
    gain = choosing.fastest([10.0] * 100, lambda: [20.0] * 100)  # threads that are twice as fast as one
    assert (gain.kind, gain.workers) == ("processes", 8)
    assert gain.said == "8 processes with one thread each, because one process should take longer"
    assert choosing.fastest([10.0] * 100, lambda: [76.0] * 100).kind == "threads"  # as large models are
    assert choosing.fastest([10.0] * 9 + [900.0], lambda: [20.0] * 9 + [1800.0]).kind == "threads"  # nobody helps with the long one
    assert choosing.fastest([50.0] * 3, lambda: [60.0] * 3).workers == 3


@pytest.mark.parametrize("text", ["", "process", "processes:0", "processes:x", "threads:2", "ray:3"])
def test_an_unknown_engine_is_refused(text: str) -> None:
    with pytest.raises(GlimpseZooError, match=r"--engine expects auto, threads, processes:N or ray, got"):
        choosing.chosen(text)


def test_torchrun_is_an_engine_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "4", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert (choosing.chosen("auto").kind, choosing.chosen("auto").workers) == ("torchrun", 4)
    with pytest.raises(GlimpseZooError, match="leave one of them out"):
        choosing.chosen("ray")
