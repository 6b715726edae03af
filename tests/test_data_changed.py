"""Data that vanish or change, and decoding workers that are killed, under a run or a training: one line, and nothing false is kept."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import threading
from collections.abc import Callable
from multiprocessing import connection, reduction
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import RECIPE, Answer, ask, photos
from data_files import encoded, opened, picture, write_parquet
from row_files import read_rows
from torch.utils.data import Dataset

import glimpsezoo as gz
from glimpsezoo.data import batches, images
from glimpsezoo.data import encoded as reading
from glimpsezoo.data.workers import loaded
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.evaluation import jobs, measuring
from glimpsezoo.evaluation.jobs import Job
from glimpsezoo.evaluation.measuring import EvaluationConfig, run_job, run_units
from glimpsezoo.training import loop

RUN = ("run", "cnn4", "--checkpoint", "none", "--data", "folder:photos", "--set", "data.size=16", "--measure", "accuracy")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(jobs, "UNIT", 4)
    monkeypatch.setattr(reading, "RECORDS", 4)
    monkeypatch.setenv("GLIMPSEZOO_HOME", str(tmp_path / "home"))


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Runs `glimpsezoo WORDS...` beside 50 photographs, of which 10 are the test split."""
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "photos")
    return lambda *words: ask(capsys, *words)


def last_of(data: Any) -> Path:
    """The last image file of a split."""
    return data.source.images.files[data.source.chosen[-1]]


def changed(file: Path) -> None:
    file.write_bytes(encoded(picture(7, 16)))


def replaced(file: Path) -> None:
    """By another file whose times are as old."""
    times = os.stat(file)
    (file.parent / "new").write_bytes(encoded(picture(8, 16)))
    os.utime(file.parent / "new", ns=(times.st_atime_ns, times.st_mtime_ns))
    (file.parent / "new").replace(file)


DISTURBED = [(changed, "changed"), (replaced, "changed"), (Path.unlink, "vanished")]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(("disturb", "says"), DISTURBED)
def test_a_file_of_class_folders_must_stay_what_it_was(tmp_path: Path, disturb: Any, says: str, workers: int) -> None:
    data = opened(f"folder:{photos(tmp_path / 'photos')}", "test", size=16)
    for bad in ("fail", "skip"):
        last = last_of(data)
        kept = last.read_bytes()
        found = batches(data, 0, 10, 1, workers, on_bad_image=bad)
        next(found)
        disturb(last)
        with pytest.raises(GlimpseZooError, match=f"got '{last.name}', which {says} since the command began"):
            list(found)
        last.write_bytes(kept)
        data = opened(f"folder:{tmp_path / 'photos'}", "test", size=16)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(("disturb", "says"), DISTURBED)
def test_a_parquet_file_must_stay_what_it_was(tmp_path: Path, disturb: Any, says: str, workers: int) -> None:
    for split in ("train", "test"):
        write_parquet(tmp_path / "copy" / f"{split}-0.parquet", [encoded(picture(k)) for k in range(40)], [0, 1] * 20, "ab", group=10)
    data = opened("hf:me/set", "test", tmp_path / "copy", size=16)
    found = batches(data, 0, 40, 1, workers)
    next(found)
    disturb(tmp_path / "copy" / "test-0.parquet")
    with pytest.raises(GlimpseZooError, match=f"got 'test-0.parquet', which {says} since the command began"):
        list(found)


def at_call(number: int, place: Any, name: str, act: Callable[[], object], patch: pytest.MonkeyPatch) -> None:
    """Act before a call of a function, once."""
    plain, calls = getattr(place, name), []

    def acting(*given: Any, **more: Any) -> Any:
        calls.append(1)
        if len(calls) == number:
            act()
        return plain(*given, **more)

    patch.setattr(place, name, acting)


def measured(run: Path) -> Any:
    """What a run measured of its model: the data, and the predictions."""
    (file,) = run.glob("*/result.json")
    stored = read_rows(file.parent / "rows.parquet")
    assert stored is not None
    return json.loads(file.read_text())["data"]["fingerprint"], stored.rows.id.tolist(), stored.rows.nll.tolist()


def test_a_run_whose_data_change_files_no_row_under_the_old_fingerprint(
    say: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    last = last_of(opened("folder:photos", "test", size=16))
    with monkeypatch.context() as patch:
        at_call(2, measuring._RunningJob, "_once", lambda: changed(last), patch)
        stopped = say(*RUN, "-o", "out")
    assert (stopped.status, stopped.out) == (2, "")
    (line,) = [line for line in stopped.err.splitlines() if line.startswith("glimpsezoo:")]
    assert f"got '{last.name}', which changed since the command began: put it back or leave it, then run again" in line

    again = say(*RUN, "-o", "out")
    assert again.status == 0, again.err
    shutil.rmtree("home", ignore_errors=True)
    assert say(*RUN, "-o", "afresh").status == 0
    assert measured(Path("out")) == measured(Path("afresh"))


def kill_workers(most: int | None = None) -> None:
    for process in multiprocessing.active_children()[:most]:
        process.kill()


def test_a_run_whose_worker_is_killed_says_so_and_goes_on(say: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        at_call(2, measuring._RunningJob, "_batch", kill_workers, patch)
        stopped = say(*RUN, "--workers", "1", "--batch-size", "1", "-o", "out")
    assert (stopped.status, stopped.out) == (2, ""), stopped
    (line,) = [line for line in stopped.err.splitlines() if line.startswith("glimpsezoo:")]
    assert "got one that was killed" in line
    assert "--workers" in line
    again = say(*RUN, "--workers", "1", "-o", "out")
    assert again.status == 0, again.err


@pytest.mark.parametrize(
    "killed_at",
    [  # the two steps in which the process takes over a batch's memory from the worker
        pytest.param((connection, "Client"), id="before the worker is asked"),
        pytest.param((reduction, "recv_handle"), id="before it answers"),
    ],
)
def test_a_worker_that_is_killed_while_it_hands_over_a_batch_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: tuple[Any, str]
) -> None:
    data = opened(f"folder:{photos(tmp_path / 'photos')}", "test", size=16)
    at_call(2, *killed_at, kill_workers, monkeypatch)
    with pytest.raises(GlimpseZooError, match="got one that was killed"):
        list(batches(data, 0, 10, 1, 1))


class _Items(Dataset[Any]):
    """Forty items of which part travels by shared memory and part, of the given size, by a pipe."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return 40

    def __getitem__(self, k: int) -> Any:
        return bytes(self.size), torch.full((100,), k)


@pytest.mark.parametrize("kills", [12, pytest.param(200, marks=pytest.mark.slow)])
def test_workers_that_are_killed_at_any_moment_are_told_once_and_leave_nothing(kills: int, capfd: pytest.CaptureFixture[str]) -> None:
    handler, told = signal.getsignal(signal.SIGCHLD), 0
    for seed in range(kills):
        chosen = random.Random(seed)
        items = loaded(_Items(chosen.choice([10, 10**5, 10**7])), 2)
        killer = threading.Timer(chosen.uniform(0, 0.2), kill_workers, [chosen.choice([1, 2])])
        killer.start()
        try:
            assert [int(item[1][0]) for item in items] == list(range(40))
        except GlimpseZooError as error:
            told += "got one that was killed" in str(error)
        killer.join()
        assert signal.getsignal(signal.SIGCHLD) == handler
    assert told
    assert capfd.readouterr() == ("", "")


def test_batches_of_workers_hold_no_files_open(tmp_path: Path) -> None:
    """A tensor that a worker made is a file, of which a process may have 1,024 open."""
    data = opened(f"folder:{photos(tmp_path / 'photos')}", "test", size=16)
    job, most = Job(gz.create_model("cnn4", task=data.task), "cnn4", data), []
    run_job(job, EvaluationConfig(workers=1, batch_size=1), on_images=lambda _: most.append(len(os.listdir("/proc/self/fd"))))
    assert len(most) >= 10
    assert max(most) <= most[1] + 2


def test_no_image_beyond_a_unit_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = opened(f"folder:{photos(tmp_path / 'photos')}", "test", size=16)
    log, plain = tmp_path / "decoded", images.decode

    def logging(row: Any, *given: Any) -> Any:  # in the worker
        with log.open("a") as file:
            file.write("+")
        return plain(row, *given)

    monkeypatch.setattr(images, "decode", logging)
    job = Job(gz.create_model("cnn4", task=data.task), "cnn4", data)
    (unit,) = run_units(job, EvaluationConfig(workers=1, batch_size=1), None, spans=[(0, 4)])
    assert unit.error is None
    assert log.read_text() == "+" * 4


@pytest.fixture
def training(say: Callable[..., Answer]) -> tuple[str | Path, ...]:
    Path("recipe.toml").write_text(RECIPE.replace("epochs = 2", "steps = 6").replace("batch_size = 64", "batch_size = 4"))
    return ("train", "cnn4", "--data", "folder:photos", "--set", "data.size=16", "--recipe", "recipe.toml", "-o", "mine")


@pytest.mark.parametrize("act", [kill_workers, lambda: [changed(file) for file in Path("photos").glob("*/*.png")]])
def test_a_training_is_stopped_by_it_in_one_line(
    say: Callable[..., Answer], training: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]
) -> None:
    with monkeypatch.context() as patch:
        at_call(2, loop._TrainingRun, "_step", act, patch)
        stopped = say(*training, "--workers", "1")
    assert (stopped.status, stopped.out) == (2, ""), stopped
    (line,) = [line for line in stopped.err.splitlines() if line.startswith("glimpsezoo:")]
    assert "got one that was killed" in line or "which changed since the command began" in line
    assert "what is finished is kept" in line
