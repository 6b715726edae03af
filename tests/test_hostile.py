"""Every command that reads a hostile file ends soon, in one line or none, and writes nothing outside of its folders."""

import os
import shlex
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from command_line import ask, lonely
from hostile_files import HOSTILE, Hostile, working_folder
from test_escaping import hidden

SECONDS = 120  # a hang, on the slowest machine


@pytest.fixture(scope="module")
def harmless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("harmless")
    working_folder(folder)
    return folder


class Hang(BaseException):
    """Not an `Exception`, so that nobody takes it for a bad file."""


@contextmanager
def soon() -> Iterator[None]:
    """Raise `Hang` in what takes too long."""

    def stop(*_: object) -> None:
        raise Hang(f"no answer within {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_there_are_many_of_every_kind():
    assert len(HOSTILE) >= 80
    assert len({each.name for each in HOSTILE}) == len(HOSTILE)


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda hostile: hostile.name)
def test_a_hostile_file(
    hostile: Hostile, harmless: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept").write_text("kept")
    work = tmp_path / "work"
    work.mkdir()
    lonely(monkeypatch, work)
    shutil.rmtree(work / "zoo_cards")
    shutil.copytree(harmless, work, dirs_exist_ok=True)
    monkeypatch.setenv("GLIMPSEZOO_HOME", str(tmp_path / "home"))
    hostile.make()
    with soon():
        answer = ask(capsys, *shlex.split(hostile.command))
    assert answer.status in hostile.status, answer.err
    assert "Traceback" not in answer.err
    assert "glimpsezoo: unexpected" not in answer.err
    assert "Warning" not in answer.err
    assert hidden(answer.err + answer.out) <= {"\n"}
    assert hostile.says in answer.err
    if answer.status == 2:
        *_, last = answer.err.splitlines()
        assert last.startswith("glimpsezoo: ")
        assert answer.err.count("glimpsezoo: ") == 1
        assert answer.out == ""
        assert not list(work.rglob(".*.part"))
    assert os.listdir(tmp_path / "outside") == ["kept"]
    assert (tmp_path / "outside" / "kept").read_text() == "kept"
    assert sorted(os.listdir(tmp_path)) in (["home", "outside", "work"], ["outside", "work"])
