"""Engines as they are: real processes, torchrun, and a Ray cluster of two nodes on this machine. All give the same result."""

import errno
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from command_line import ask
from test_sharing import CONFIG, bench_of, evaluation, sharing_of, small_units
from test_torchrun import TORCHRUN, of_rank
from torch import Tensor
from torch.distributed import PrefixStore, TCPStore
from toy_evaluation import IMAGES, Darker, Deadly, assert_same, job_of

from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.evaluation.measuring import run_job
from glimpsezoo.ranks import ProcessLostError, Ranks
from glimpsezoo.run.engines import processes, torchrun
from glimpsezoo.run.engines.processes import Processes
from glimpsezoo.run.engines.shipping import BlockMissing, packed_outcome, settle
from glimpsezoo.run.portions import Doer, Outcome, Portion

RUN = ("run", "cnn4", "mgnet", "--data", "digits", "--limit", "60", "--measure", "accuracy,anytime,fog,pgd", "--set", "pgd.steps=2")
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
COMMAND = (sys.executable, "-m", "glimpsezoo")
RANKS = (*TORCHRUN, "-m", "glimpsezoo")

__all__ = ["small_units"]


def test_processes_find_the_same_and_replace_one_that_is_killed(tmp_path: Path) -> None:
    job = job_of()
    deadly = job_of(condition=Deadly(2, marker=str(tmp_path / "killed")))
    plan = [evaluation(job), evaluation(deadly, "deadly")]
    work = sharing_of(plan, tmp_path / "units")
    decoding = replace(CONFIG, workers=1)  # in a process that the engine's processes start
    with Processes(Doer(plan, bench_of(job), decoding), 2) as engine:
        found = work.run(engine)
        engine.close(hurry=True)
    assert (tmp_path / "killed").exists()
    for mine, alone in ((job, job_of()), (deadly, job_of(condition=Darker(2)))):
        rows = run_job(mine, CONFIG, known=found.units, store=work.store)
        assert (rows.done, len(rows.rows)) == (4, IMAGES)
        assert_same(rows.rows, run_job(alone, CONFIG).rows)


def test_a_plan_that_cannot_be_sent_leaves_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    registered = list[str]()
    monkeypatch.setattr(processes.resource_tracker, "register", lambda name, kind: registered.append(name))
    job = job_of()
    job.model.lock = threading.Lock()
    with pytest.raises(GlimpseZooError, match="cannot be pickled"):
        Processes(Doer([evaluation(job)], bench_of(job), CONFIG), 2)
    assert registered == []


class StrangeError(Exception):
    """It is pickled by its text alone, which its constructor does not take."""

    def __init__(self, what: str, code: int) -> None:
        super().__init__(f"{what} ({code})")


@dataclass
class Cursed(Darker):
    """The images of one unit cannot be changed."""

    name = "cursed"

    def apply(self, images: Tensor, labels: Tensor, ids: Tensor, model: Any) -> Tensor:
        if 1000 in ids:
            raise StrangeError("cursed", 7)
        return super().apply(images, labels, ids, model)


def test_an_error_that_cannot_be_rebuilt_fails_its_unit_alone(tmp_path: Path) -> None:
    job = job_of(condition=Cursed(2))
    plan = [evaluation(job)]
    work = sharing_of(plan, tmp_path / "units")
    with Processes(Doer(plan, bench_of(job), CONFIG), 2) as engine:
        found = work.run(engine)
        engine.close(hurry=True)
    (failed,) = [unit for unit in found.units.values() if isinstance(unit, Exception)]
    assert (type(failed), str(failed)) == (RuntimeError, "StrangeError: cursed (7)")
    assert len(found.units) == 4


def test_what_came_of_a_portion_reaches_who_waits_for_it(tmp_path: Path) -> None:
    for error, said in ((StrangeError("cursed", 7), "StrangeError: cursed (7)"), (ValueError("plain"), "plain")):
        waiting: Future[Outcome] = Future()
        settle(waiting, packed_outcome(error))
        assert str(waiting.exception(0)) == said
        settle(done := Future[Outcome](), packed_outcome(Outcome(units={"a": error}, findings={0: error})))
        assert str(done.result(0).units["a"]) == str(done.result(0).findings[0]) == said
    settle(lost := Future[Outcome](), b"no pickle")  # where an error would be heard by nobody
    assert isinstance(lost.exception(0), pickle.UnpicklingError)


def test_a_full_disk_for_temporary_files_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*given: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    job = job_of()
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(GlimpseZooError, match=r"expected room for models in .*No space left on device\): make some, or set TMPDIR"):
        Processes(Doer([evaluation(job)], bench_of(job), CONFIG), 2)


def test_ray_that_is_not_installed_and_a_cluster_that_does_not_answer_are_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("run", "cnn4", "--checkpoint", "none", "--data", "digits", "--limit", "4", "--engine", "ray")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "ray", None)
        absent = ask(capsys, *words)
    assert (absent.status, absent.err.splitlines()[-1]) == (
        2,
        "glimpsezoo: --engine ray expects the package ray, got none: pip install 'ray>=2.40'",
    )
    pytest.importorskip("ray")
    nobody = ask(capsys, *words, "--ray-address", "127.0.0.1:9")
    assert (nobody.status, nobody.err.splitlines()[-1]) == (
        2,
        "glimpsezoo: expected a Ray cluster at 127.0.0.1:9, got no answer: start a cluster there ('ray start'), or correct --ray-address",
    )
    # A grid says the same once, before its first cell.
    Path("grid.toml").write_text('models = ["cnn4", "ranzato"]\nseeds = [0, 1]\n')
    (word, *rest) = words[2:]
    grid = ask(capsys, "run", "--grid", "grid.toml", word, *rest, "--ray-address", "127.0.0.1:9", "--measure", "quick")
    assert (grid.status, grid.out, grid.err) == (2, "", nobody.err)
    assert not list(tmp_path.rglob("*.json"))


def test_a_node_without_a_plugin_or_with_another_version_is_refused_by_name() -> None:
    from glimpsezoo.run.engines.ray import _check, _needed

    job = job_of()
    needed = _needed([type(job.model).__module__])
    assert [name for name, _, _ in needed] == ["glimpsezoo", "toy_models"]
    _check(needed)
    with pytest.raises(
        GlimpseZooError, match=r"expected glimpsezoo_other 2\.0 on every node, got a node without it \(.+\): install it there"
    ):
        _check((("glimpsezoo_other", "2.0", "code"),))
    with pytest.raises(GlimpseZooError, match=r"expected toy_models 9\.9 on every node, got another one on .+: install the same there"):
        _check((("toy_models", "9.9", "other code"),))


def test_what_is_at_work_is_lost_when_the_head_of_a_cluster_no_longer_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Ray: somebody listens as its head does, and hangs up. A cluster whose head is killed is among the slow tests."""
    from glimpsezoo.run.engines import ray

    monkeypatch.setattr(ray, "POLL", 0.01)
    monkeypatch.setattr(ray, "PATIENCE", 0.1)
    engine, portion = ray.Ray.__new__(ray.Ray), Future[Outcome]()
    with socket.create_server(("127.0.0.1", 0)) as head:
        engine.head, engine.closed, engine.flying = f"127.0.0.1:{head.getsockname()[1]}", threading.Event(), {portion}
        engine.ray, engine.on_gpu = SimpleNamespace(cluster_resources=lambda: {"CPU": 3.0}), False
        watching = threading.Thread(target=engine._watch)
        watching.start()
        while getattr(engine, "slots", 1) != 3:
            time.sleep(0.01)
        assert not portion.done()
    with pytest.raises(ProcessLostError, match=rf"the head of the Ray cluster at {engine.head}.*finished units are kept.*which resumes"):
        portion.result(timeout=60)
    watching.join()


def test_images_that_cannot_be_sent_to_a_cluster_are_the_error_of_their_portion() -> None:
    """Without Ray. Where the answer of a worker is dealt with, nobody hears of an error: the run would wait for ever."""
    from glimpsezoo.run.engines import ray

    engine, done = ray.Ray.__new__(ray.Ray), Future[Outcome]()
    answer: Future[BlockMissing] = Future()
    engine.ray = SimpleNamespace(exceptions=SimpleNamespace(RayError=OSError), put=lambda block: 1 / 0)
    engine.remote = SimpleNamespace(remote=lambda *given: SimpleNamespace(future=lambda: answer))
    engine.blocks, engine.data, engine.needed, engine.plan = {}, [job_of().data], (), None
    engine._send(Portion(()), Outcome(), [], done)
    answer.set_result(BlockMissing((0, 0)))
    with pytest.raises(ZeroDivisionError):
        done.result(timeout=0)


def test_an_unknown_engine_is_refused_before_anything_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    answer = ask(capsys, "run", "cnn4", "--engine", "slurm", "--dry-run")
    assert (answer.status, answer.err.splitlines()[-1].partition(":")[0]) == (2, "glimpsezoo")
    assert "--engine expects auto, threads, processes:N or ray, got 'slurm'" in answer.err


def outcome(folder: Path) -> dict[str, Any]:
    """All that a run wrote, but for time, environment, and the command that was typed."""
    found: dict[str, Any] = {}
    for path in sorted((folder / "out").rglob("result.json")):
        result = json.loads(path.read_text())
        del result["environment"], result["hashes"]
        for key in ("started", "finished", "command"):
            del result["run"][key]
        found[path.parent.name] = result, pq.read_table(path.with_name("rows.parquet")).to_pylist()
    found["comparison"] = (folder / "out" / "comparison.json").read_text()
    return found


def run(folder: Path, *words: str, before: tuple[str, ...] = COMMAND) -> str:
    """Standard error."""
    folder.mkdir()
    given = [*before, *RUN, "-o", "out", *words]
    done = subprocess.run(given, cwd=folder, env=ENV, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one process finds."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    run(folder, "--engine", "threads")
    return outcome(folder)


@pytest.mark.slow
def test_processes_write_the_same_result(alone: dict[str, Any], tmp_path: Path) -> None:
    said = run(tmp_path / "run", "--engine", "processes:2")
    assert "leak" not in said  # as bindings call what a worker has frozen, from torch 2.15 on
    assert outcome(tmp_path / "run") == alone


class PerThread:
    """Numbers from 0 for each thread, as each process of torchrun has its own."""

    def __init__(self) -> None:
        self.counts: dict[int, Iterator[int]] = defaultdict(count)

    def __next__(self) -> int:
        return next(self.counts[threading.get_ident()])


def test_torchrun_sends_plans_of_any_size_and_keeps_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store of torchrun takes no value above 8 MiB. Its second process is a thread here."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setattr(torchrun, "store", lambda: store)
    monkeypatch.setattr(torchrun, "here", lambda: Ranks(world=2))
    monkeypatch.setattr(torchrun, "_plans", PerThread())
    second = threading.Thread(target=torchrun.serve)
    second.start()
    job = job_of()
    job.model.large = torch.zeros(3 << 20)
    work = sharing_of([evaluation(job)], tmp_path / "units")
    with torchrun.Torchrun(Doer(work.plan, bench_of(job), CONFIG)) as engine:
        found = work.run(engine)
    torchrun.dismiss()
    second.join()
    assert_same(run_job(job, CONFIG, known=found.units, store=work.store).rows, run_job(job_of(), CONFIG).rows)
    place = PrefixStore("engine/plan0", store)
    assert place.check(["plan", "portion0", "outcome0"])  # how many values there were, and none of them
    assert not any(place.check([f"{name}/0"]) for name in ("plan", "portion0", "outcome0"))


@pytest.mark.slow
def test_torchrun_writes_the_same_result(alone: dict[str, Any], tmp_path: Path) -> None:
    run(tmp_path / "run", before=RANKS)
    assert outcome(tmp_path / "run") == alone


@pytest.mark.slow
def test_a_wrong_command_is_said_once_by_torchrun(tmp_path: Path) -> None:
    done = subprocess.run([*RANKS, "run", "mgnt"], cwd=tmp_path, env=ENV, capture_output=True, text=True, timeout=300, check=False)
    assert done.stderr.count("did you mean 'mgnet'") == 1
    assert done.returncode


@pytest.mark.parametrize("rank", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_a_process_of_torchrun_that_dies_ends_all_in_one_line_and_the_same_command_goes_on(tmp_path: Path, rank: int) -> None:
    """Threads that wait for messages do not abort a process at its end. Whoever is left speaks, if it is not the first."""
    words = ("run", "cnn4", "--measure", "accuracy,corruptions", "--limit", "60", "--store", "units")
    with subprocess.Popen([*RANKS, *words], cwd=tmp_path, env=ENV, stderr=subprocess.PIPE, text=True, start_new_session=True) as running:
        assert running.stderr is not None
        until = time.monotonic() + 300
        while not list(tmp_path.glob("units/**/*.parquet")):
            assert time.monotonic() < until
            assert running.poll() is None
            time.sleep(0.02)
        os.kill(of_rank(rank, running.pid), signal.SIGKILL)
        said = running.stderr.read()
    assert running.returncode == 1
    (line,) = [line for line in said.splitlines() if line.startswith("glimpsezoo:")]
    assert "finished units are kept: the same command resumes" in line
    assert "terminate called" not in said
    assert "SIGABRT" not in said
    again = subprocess.run([*COMMAND, *words], cwd=tmp_path, env=ENV, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert "measured already" in again.stderr


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two nodes of Ray on this machine, each with one CPU."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    for name, value in ENV.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RAY_health_check_period_ms", "500")
    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "300")
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes.add_node(num_cpus=1)
    yield nodes
    nodes.shutdown()


def workers() -> list[int]:
    """Processes that do a portion for a Ray cluster."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(b"ray::_do"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_ray_writes_the_same_result_though_a_worker_is_killed_and_a_node_leaves(
    alone: dict[str, Any], cluster: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    words = [*COMMAND, *RUN, "-o", "out", "--engine", "ray", "--ray-address", cluster.address]
    running = subprocess.Popen(words, cwd=folder, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 300
    while not (busy := workers()):
        assert time.monotonic() < until
        assert running.poll() is None, running.communicate()
        time.sleep(0.02)
    os.kill(busy[0], signal.SIGKILL)
    time.sleep(1)
    cluster.remove_node(cluster.list_all_nodes()[-1])
    _, said = running.communicate(timeout=300)
    assert running.returncode == 0, said
    assert outcome(folder) == alone


@pytest.mark.slow
def test_a_head_of_a_cluster_that_dies_ends_the_run_in_one_line_and_the_same_command_goes_on(cluster: Any, tmp_path: Path) -> None:
    def begun(address: str) -> "subprocess.Popen[str]":
        words = ("run", "cnn4", "--measure", "accuracy,corruptions", "--limit", "60", "--store", "units", "--engine", "ray")
        given = [*COMMAND, *words, "--ray-address", address]
        return subprocess.Popen(given, cwd=tmp_path, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    address = cluster.address
    first, until = begun(address), time.monotonic() + 500
    while not list(tmp_path.glob("units/**/*.parquet")):
        assert time.monotonic() < until
        assert first.poll() is None, first.communicate()
        time.sleep(0.02)
    cluster.remove_node(cluster.head_node, allow_graceful=False)
    _, said = first.communicate(timeout=300)
    assert first.returncode == 2, said
    (line,) = [line for line in said.splitlines() if line.startswith("glimpsezoo:")]
    assert line == said.splitlines()[-1], said
    assert f"the head of the Ray cluster at {address}" in line
    assert "finished units are kept" in line
    cluster.shutdown()
    cluster.add_node(num_cpus=1, include_dashboard=False)
    again = begun(cluster.address)
    _, said = again.communicate(timeout=500)
    assert again.returncode == 0, said
    assert "measured already" in said
