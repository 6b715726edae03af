"""Claims on units: one holder at a time, over when the holder is gone, and never taken from a process that lives."""

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from glimpsezoo.evaluation import claims
from glimpsezoo.evaluation.claims import FOLDER
from glimpsezoo.evaluation.places import Folder
from glimpsezoo.evaluation.store import UnitStore
from glimpsezoo.files import _sweep, sweep, whole, write_whole
from glimpsezoo.processes import is_gone, machine

ELSEWHERE = {"machine": "00000000", "process": 1, "token": "theirs", "beat": "000000000000"}
UNIT = "0123456789abcdef" * 2


def put_claim(folder: Path, unit: str = UNIT, **changes: Any) -> Path:
    """A claim of a process on another machine."""
    path = folder / FOLDER / f"{unit}.0"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**ELSEWHERE, **changes}))
    return path


def ended_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def claimed(store: UnitStore, unit: str = UNIT) -> bool:
    with store.claim(unit) as mine:
        return mine


def in_claims(folder: Path) -> list[str]:
    return sorted(os.listdir(folder / FOLDER))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "BEAT", 0.01)
    monkeypatch.setattr(claims, "EXPIRY", 0.2)


def test_a_claim_of_another_machine_is_over_when_it_has_not_changed_while_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(claims.time, "monotonic", lambda: now[0])
    store, path = UnitStore(tmp_path), put_claim(tmp_path)
    os.utime(path, (0, 0))  # how old the file is says nothing: clocks differ
    assert not claimed(store)
    now[0] += claims.EXPIRY - 1
    assert not claimed(store)
    put_claim(tmp_path, beat="000000000001")
    now[0] += 2
    assert not claimed(store)  # it has changed
    now[0] += claims.EXPIRY + 1
    assert not claimed(UnitStore(tmp_path))  # another watcher has only begun
    assert claimed(store)
    assert in_claims(tmp_path) == []


def test_a_claim_that_is_half_written_is_over_when_it_stays_so(tmp_path: Path, quick: None) -> None:
    store, path = UnitStore(tmp_path), put_claim(tmp_path)
    path.write_text("")
    assert not claimed(store)
    time.sleep(0.3)
    assert claimed(store)


def test_a_claim_that_is_held_for_long_stays_alive(tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another machine watches it; its own machine would know that the process runs."""
    watcher = UnitStore(tmp_path)
    monkeypatch.setattr(claims, "is_gone", lambda where, pid: False)
    with UnitStore(tmp_path).claim(UNIT) as mine:
        assert mine
        for _ in range(40):
            assert not claimed(watcher)
            time.sleep(0.02)
    assert claimed(watcher)


def test_many_claims_have_one_thread_which_ends_with_the_last(tmp_path: Path, quick: None) -> None:
    def beats() -> list[str]:
        return [json.loads(path.read_text())["beat"] for path in sorted((tmp_path / FOLDER).iterdir())]

    def threads() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "claims"]

    with ExitStack() as stack:
        stores = UnitStore(tmp_path), UnitStore(tmp_path)
        assert all(stack.enter_context(stores[k % 2].claim(f"{k:032}")) for k in range(20))
        (thread,) = threads()
        while min(map(int, beats())) < 2:
            time.sleep(0.01)
        assert threads() == [thread]
    thread.join(10)
    assert not thread.is_alive()
    assert in_claims(tmp_path) == []


def test_of_many_successors_one_takes_over(tmp_path: Path) -> None:
    for _ in range(5):
        put_claim(tmp_path, machine=machine(), process=ended_process())
        begin, end, winners = threading.Barrier(8), threading.Barrier(8), list[int]()

        def take(number: int, begin: threading.Barrier = begin, end: threading.Barrier = end, winners: list[int] = winners) -> None:
            store = UnitStore(tmp_path)
            begin.wait()
            with store.claim(UNIT) as mine:
                if mine:
                    winners.append(number)
                end.wait()

        threads = [threading.Thread(target=take, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(winners) <= 1  # all may have been in each other's way: the next try
        assert claimed(UnitStore(tmp_path))
        assert in_claims(tmp_path) == []


def test_a_successor_that_was_overtaken_steps_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it looks at a claim that is over, another takes it over and ends, and a third holds the unit anew."""
    put_claim(tmp_path, machine=machine(), process=ended_process())
    slow, third, create = UnitStore(tmp_path), UnitStore(tmp_path), Folder.create
    with ExitStack() as stack:

        def overtaken(place: Folder, name: str, content: bytes) -> bool:
            if place is slow.place:
                assert claimed(UnitStore(tmp_path))
                assert stack.enter_context(third.claim(UNIT))
            return create(place, name, content)

        monkeypatch.setattr(Folder, "create", overtaken)
        with slow.claim(UNIT) as mine:
            assert not mine
        assert in_claims(tmp_path) == [f"{UNIT}.0"]
    assert claimed(UnitStore(tmp_path))


def test_an_owner_that_wakes_up_leaves_its_successor_alone(tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "is_gone", lambda where, pid: False)
    sleeper, other, third = UnitStore(tmp_path), UnitStore(tmp_path), UnitStore(tmp_path)
    with sleeper.claim(UNIT) as mine:
        assert mine
        with monkeypatch.context() as patch:  # suspended: it does not beat
            patch.setattr(claims._OwnClaim, "beat", lambda self: None)
            assert not claimed(other)
            time.sleep(0.3)
            taken = other.claim(UNIT)
            assert taken.__enter__()
        time.sleep(0.1)
        assert not claimed(third)
    assert not claimed(third)  # the sleeper has released its own claim
    assert in_claims(tmp_path) == [f"{UNIT}.1"]
    taken.__exit__(None, None, None)
    assert in_claims(tmp_path) == []
    assert claimed(third)


def test_a_process_that_forks_keeps_its_claims_to_itself(tmp_path: Path, quick: None) -> None:
    with UnitStore(tmp_path).claim(UNIT) as mine:
        assert mine
        child = os.fork()
        if child == 0:
            os._exit(0 if claims._heart._thread is None and not claims._heart._held and not claimed(UnitStore(tmp_path)) else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert not claimed(UnitStore(tmp_path))


def test_what_ended_processes_left_is_swept_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_claim(tmp_path, "a" * 32, machine=machine(), process=ended_process())
    put_claim(tmp_path, "b" * 32, machine=machine(), process=os.getpid())
    put_claim(tmp_path, "c" * 32)
    locks = tmp_path / "locks"
    locks.mkdir()
    for name in ("d" * 32, "e" * 32, "mine.txt"):
        (locks / name).touch()
    (tmp_path / FOLDER / "mine.txt").touch()
    with FileLock(locks / ("e" * 32)):
        store = UnitStore(tmp_path)
        store.sweep()
        assert in_claims(tmp_path) == ["b" * 32 + ".0", "c" * 32 + ".0", "mine.txt"]
        assert sorted(os.listdir(locks)) == ["e" * 32, "mine.txt"]
    now = time.monotonic()
    monkeypatch.setattr(claims.time, "monotonic", lambda: now + claims.EXPIRY + 1)
    store.sweep()  # neither has changed since
    assert in_claims(tmp_path) == ["mine.txt"]


def test_half_written_files_of_ended_processes_are_swept_and_nothing_else(tmp_path: Path) -> None:
    token, day = "0123abcd", time.time() - 2 * 86_400
    gone = [f".x.parquet.{machine()}-{ended_process()}-{token}.part", f".old.json.00000000-1-{token}.part", f".older.{'0' * 32}.part"]
    kept = [
        f".x.parquet.{machine()}-{os.getpid()}-{token}.part",
        f".new.json.00000000-1-{token}.part",
        f".newer.{'0' * 32}.part",
        "mine.part",
        ".mine.part",
        f"x.{machine()}-1-{token}.part",
    ]
    for name in (*gone, *kept):
        (tmp_path / name).touch()
    for name in (*gone[1:], kept[0], *kept[3:]):
        os.utime(tmp_path / name, (day, day))
    (tmp_path / f".folder.{'1' * 32}.part").mkdir()
    _sweep.cache_clear()
    write_whole(tmp_path / "x.parquet", b"")
    assert set(os.listdir(tmp_path)) == {*kept, "x.parquet", f".folder.{'1' * 32}.part"}


def test_a_half_written_file_says_whose_it_is(tmp_path: Path) -> None:
    with whole(tmp_path / "x") as part:
        part.touch()
        _sweep.cache_clear()
        sweep(tmp_path)
        assert part.exists()
        assert f"{machine()}-{os.getpid()}-" in part.name


def test_whether_a_process_has_ended_is_known_of_this_machine_only() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert not is_gone(machine(), process.pid)
    process.kill()
    while not is_gone(machine(), process.pid):  # though nobody has asked for its exit status
        time.sleep(0.01)
    process.communicate()
    assert is_gone(machine(), process.pid)
    assert not is_gone("00000000", process.pid)
