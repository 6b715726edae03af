"""Commands that are stopped: real processes, real signals. They end in one line, and the same command goes on to the same result."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from command_line import RECIPE, TINY, ask

from glimpsezoo.commands import main, signals
from glimpsezoo.zoo.cards import Card

pytestmark = pytest.mark.repository

TRAIN = ("train", "mgnet", "--recipe", "../tiny.toml", *TINY, "--set", "train.steps=4", "-o", "mine")
RUN = ("run", "mgnet", "--checkpoint", "none", *TINY, "--limit", "30", "--measure", "quick", "--workers", "1", "-o", "mine")

# Does a command undisturbed, and then every case in a process of its own, forked because importing takes longer than all of them. Each is
# a process group, which is struck as by Ctrl-C in a shell: its workers get the signal, too. A strike is: in which call of a function.
CASES = """
import json, os, signal, sys, time
import glimpsezoo.training.loggers
import glimpsezoo_mgnet.training
from glimpsezoo.commands import main, program
from glimpsezoo.evaluation import jobs, measuring
from glimpsezoo.training import loop

def struck(place, name, at, number):
    plain, calls = getattr(place, name), []
    def strike(*given, **more):
        calls.append(1)
        if len(calls) == at:
            os.killpg(0, number)
            time.sleep(0.01)
        return plain(*given, **more)
    setattr(place, name, strike)

def child(folder, strikes, closed, words):
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the tests themselves may run where signals are ignored
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    os.makedirs(folder, exist_ok=True)
    os.chdir(folder)
    reader, writer = os.pipe()
    os.close(reader)
    for stream in (1, 2):
        kept = os.open(str(stream), os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        os.dup2(writer if stream in closed else kept, stream)
    for place, name, at, number in strikes:
        struck(eval(place), name, at, number)
    sys.argv = ["glimpsezoo", *words]
    program()

jobs.UNIT = 10
os.environ["GLIMPSEZOO_HOME"] = os.getcwd() + "/home"
undisturbed, *cases = json.loads(sys.argv[1])
os.mkdir("whole")
os.chdir("whole")
try:
    main(undisturbed)
except SystemExit as end:
    assert not end.code
os.chdir("..")
answers = []
for folder, strikes, closed, words in cases:
    if not (number := os.fork()):
        child(folder, strikes, closed, words)
    status = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
    answers.append([status, *(open(f"{folder}/{stream}").read() for stream in (1, 2))])
open("answers", "w").write(json.dumps(answers))
"""
BLOCK = ("measuring._RunningJob", "_once", 2)  # the second one
STEP, SAVE = ("glimpsezoo_mgnet.training", "mgnet_step", 2), ("loop", "write_checkpoint", 1)
CLOSE = ("glimpsezoo.training.loggers.Loggers", "close", 1)  # what is cleaned up after that


class Case(NamedTuple):
    folder: str
    words: Sequence[str]
    strikes: Sequence[tuple[str, str, int, int]] = ()
    closed: Sequence[int] = ()
    """The streams (1, 2) that nobody reads."""


class Ended(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The line that ends a command which was stopped: the only one of its kind, and after it nothing."""
        assert self.out == ""
        assert "Traceback" not in self.err
        *before, last = self.err.splitlines()
        assert not [line for line in before if line.startswith("glimpsezoo:")]
        assert last.startswith("glimpsezoo: stopped; ")
        return last


def answers(here: Path, undisturbed: Sequence[str], *cases: Case) -> list[Ended]:
    given = [undisturbed, *((case.folder, case.strikes, case.closed, case.words) for case in cases)]
    subprocess.run(
        [sys.executable, "-c", CASES, json.dumps(given)],
        cwd=here,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=True,
    )
    return [Ended(*answer) for answer in json.loads((here / "answers").read_text())]


def numbers(folder: Path) -> dict[str, Any]:
    """What a run measured."""
    found = json.loads(next(folder.glob("mine/**/result.json")).read_text())
    return {"accuracy": found["accuracy"], "flops": found["flops"]}


STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


def test_a_stopped_run_says_what_is_kept_and_goes_on(tmp_path: Path) -> None:
    stopped = [Case(str(status), RUN, [(*BLOCK, number)]) for number, status in STATUS.items()]
    unread = Case("unread", (*RUN, "--json"), closed=[1])
    first, then = [*stopped, unread], [Case(case.folder, RUN) for case in [*stopped, unread]]
    ended = answers(tmp_path, RUN, *first, *then)
    for status, end in zip(STATUS.values(), ended, strict=False):
        assert end.status == status
        assert "finished units" in end.line
        assert "resumes here" in end.line
    assert ended[3].status == 141
    assert "glimpsezoo:" not in ended[3].err
    for case, end in zip(then, ended[len(first) :], strict=True):
        assert end.status == 0
        assert numbers(tmp_path / case.folder) == numbers(tmp_path / "whole")
    assert all("2 units measured, 1 reused" in end.err for end in ended[4:7])
    assert "0 units measured, 3 reused" in ended[7].err


def test_a_stopped_training_writes_its_checkpoint_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(RECIPE)
    stopped = [Case(str(status), TRAIN, [(*STEP, number)]) for number, status in STATUS.items()]
    thrice = [(*place, signal.SIGINT) for place in (STEP, SAVE, CLOSE)]
    first = [*stopped, Case("thrice", TRAIN, thrice)]
    ended = answers(tmp_path, TRAIN, *first, *(Case(case.folder, TRAIN) for case in first))
    for case, status, end, again in zip(first, [*STATUS.values(), 130], ended[:4], ended[4:], strict=True):
        assert end.status == status
        assert "checkpoint is kept" in end.line
        assert ("; resumes from its checkpoint" in again.err) == (case.folder != "thrice")  # the checkpoint itself was interrupted
        weights = [Card.read(tmp_path / folder / "mine").config.weights for folder in (case.folder, "whole")]
        assert weights[0] == weights[1]


def into_closed_pipe(*words: str, errors: bool = False) -> tuple[int, str]:
    """The exit status, and standard error, of a command whose output nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "glimpsezoo", *words]
    done = subprocess.run(command, stdout=writer, stderr=writer if errors else subprocess.PIPE, text=True, check=False)
    os.close(writer)
    return done.returncode, done.stderr or ""


def test_a_closed_pipe_is_silent() -> None:
    assert into_closed_pipe("list", "-q") == (141, "")
    assert into_closed_pipe("--help") == (141, "")
    assert into_closed_pipe("list", "--json", errors=True) == (141, "")
    assert into_closed_pipe("list", "-q", "--wrong")[0] == 2  # its line is on standard error, which is read


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        ("list >&- <&-", 0, ""),  # nobody wants the output
        ("list --wrong >&- 2>&-", 2, ""),
        ("list models >/dev/full", 2, "room on the disk"),
        ("list --wrong 2>/dev/full", 2, ""),  # the line has no place, the status does
    ],
)
def test_streams_that_are_closed_or_full(command: str, status: int, said: str) -> None:
    ended = subprocess.run(["bash", "-c", f"{sys.executable} -m glimpsezoo {command}"], capture_output=True, text=True, check=False)
    assert ended.returncode == status
    assert said in ended.stderr
    assert len(ended.stderr.splitlines()) == bool(said)


@pytest.mark.parametrize(("command", "status"), [("--version", 0), ("--wrong", 2)])
def test_a_process_ends_without_taking_apart_what_it_loaded(command: str, status: int) -> None:
    """For torch, that takes most of a second. What modules want to do at the end is done, and what was printed is written."""
    program = f"""if True:
        import atexit, os, sys
        from glimpsezoo.commands import program

        class Loaded:
            def __del__(self):
                os.write(1, b"taken apart")

        loaded, sys.argv[1:] = Loaded(), ["{command}"]
        try:
            program()
        finally:
            atexit.register(print, "last words")"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == status
    assert ended.stdout.splitlines()[-1] == "last words"


def test_what_signals_did_before_they_do_afterwards() -> None:
    before = [signal.getsignal(number) for number in signals.SIGNALS]
    with pytest.raises(SystemExit):
        main(["--version"])
    assert [signal.getsignal(number) for number in signals.SIGNALS] == before


def test_a_signal_that_is_ignored_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with signals.raised("stopped"), signals.delayed() as noted:
            os.kill(os.getpid(), signal.SIGHUP)
        assert noted == []
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_command_in_another_thread_leaves_signals_alone() -> None:
    status: list[object] = []

    def work() -> None:
        try:
            main(["--version"])
        except SystemExit as end:
            status.append(end.code)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert status == [0]


def test_a_signal_after_the_last_step_still_stops() -> None:
    seen: list[int] = []
    with contextlib.suppress(signals.Stopped), signals.raised("stopped"):
        with signals.delayed() as noted:
            os.kill(os.getpid(), signal.SIGTERM)
            seen = noted
        seen = []
    assert seen == [signal.SIGTERM]


def test_a_signal_while_a_command_says_why_it_failed_changes_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """torchrun ends the other processes as soon as one has died, which they may be about to say."""

    def struck() -> bool:
        os.kill(os.getpid(), signal.SIGTERM)
        return True

    monkeypatch.setattr("glimpsezoo.ranks.may_complain", struck)
    answer = ask(capsys, "show", "mgnt")
    assert (answer.status, answer.err.count("\n")) == (2, 1), answer.err
    assert "'mgnet'" in answer.err
