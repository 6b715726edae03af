"""Commands that are killed (SIGKILL) at a change of the file system or of the Hub: before it, after it, or with half of a file's content
written; or at any moment.

A change is a file that is opened for writing, a file or folder that is made, renamed, linked, cut or removed, by Python code, and a
request to the Hub. What libraries write in C (Parquet) is not seen, but the renaming that follows is.

Every command is forked from one process (this file as a program) that has run one before, because importing takes longer than all of them.
"""

import builtins
import gc
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

When = Literal["before", "after", "torn"]
KILLED = -signal.SIGKILL
LONG = 60.0  # seconds that a worker may need to notice: it looks once per second, as soon as it has imported everything


class Place(NamedTuple):
    """Where a command is killed."""

    at: int = 0
    """The number of the change, from 1; 0 lets the command end."""
    when: When = "before"
    """torn: after half of what it writes."""
    seconds: float | None = None
    """Instead of at a change, after so many seconds."""


class Ended(NamedTuple):
    """How a command ended."""

    status: int
    """`KILLED`, or the exit status."""
    out: str
    err: str
    changes: list[str]
    """What it changed, in order: the kind of change and the path."""
    seconds: float
    """How long it took."""
    outliving: list[str]
    """Processes that it had started, and which still ran `LONG` seconds after its end."""


class Killed(NamedTuple):
    """A command that was killed, and the same command again."""

    folder: Path
    """The working directory of both."""
    killed: Ended
    again: Ended

    @property
    def left(self) -> Path:
        """The folder as the killed command left it."""
        return self.folder.with_name(f"{self.folder.name}.killed")

    @property
    def temporary(self) -> list[str]:
        """What is left in the folder for temporary files."""
        return sorted(os.listdir(self.folder.with_name(f"{self.folder.name}.tmp")))


class Task(NamedTuple):
    """What is done: `glimpsezoo WORDS...`, undisturbed and then killed in many places."""

    words: Sequence[str]
    """`{folder}` stands for the name of the working directory."""
    setup: str = ""
    """Python statements that the process executes first (`jobs.UNIT = 10`, say)."""
    most: int | None = None
    """The number of places, spread evenly; None is all of them."""
    moments: int = 0
    """Instead of at changes, kill it at so many random moments."""
    warm: Sequence[str] = ()
    """The command that imports everything, if it is not the same."""


def kill_everywhere(
    here: Path, words: Sequence[str], *, most: int | None = None, setup: str = "", warm: Sequence[str] = ()
) -> tuple[Ended, list[Killed]]:
    """Do a command undisturbed in the folder `whole`, then in a folder for every place where it can be killed.

    here: in which those are made. Each begins as a copy of the folder `begin`, if that is in there.
    """
    return _killed(here, Task(words, setup, most, warm=warm))


def kill_at_moments(
    here: Path, words: Sequence[str], count: int, *, setup: str = "", warm: Sequence[str] = ()
) -> tuple[Ended, list[Killed]]:
    """The same at random moments, for a command whose work other processes do."""
    return _killed(here, Task(words, setup, moments=count, warm=warm))


def _killed(here: Path, task: Task) -> tuple[Ended, list[Killed]]:
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, __file__, json.dumps(task)], cwd=here, env=env, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (_, whole), *cases = [(folder, Ended(*ended)) for folder, ended in json.loads((here / "ended").read_text())]
    pairs = zip(cases[::2], cases[1::2], strict=True)
    return whole, [Killed(here / folder, killed, again) for (folder, killed), (_, again) in pairs]


def places(changes: Sequence[str], most: int | None = None) -> list[Place]:
    """Where a command that makes these changes can be killed."""
    whens: tuple[When, ...] = ("before", "after", "torn")
    found = [Place(at, when) for at, change in enumerate(changes, 1) for when in whens if when != "torn" or change.startswith("write ")]
    count = len(found) if most is None else min(most, len(found))
    return [found[(2 * k + 1) * len(found) // (2 * count)] for k in range(count)]


def _moments(seconds: float, count: int) -> list[Place]:
    """Random moments of a command that takes so long: one in each of as many equal parts."""
    source = random.Random(0)
    return [Place(seconds=(k + source.random()) * seconds / count) for k in range(count)]


def _serve(task: Task) -> None:
    exec(task.setup, {})
    from glimpsezoo.commands import main

    _begin("warm")
    os.chdir("warm")
    with suppress(SystemExit):
        main([word.replace("{folder}", "warm") for word in task.warm or task.words])
    os.chdir("..")
    for each in gc.get_objects():
        if type(each) is tempfile.TemporaryDirectory:  # of a library (torch 2.6): the first fork that ends would remove it
            each.cleanup()
    whole = _forked("whole", task.words, Place())
    answers = [("whole", whole)]
    for number, planned in enumerate(_moments(whole.seconds, task.moments) if task.moments else places(whole.changes, task.most)):
        place = planned
        folder = f"moment-{number}" if task.moments else f"{place.at}-{place.when}"
        killed = _forked(folder, task.words, place)
        while killed.status == 0 and (place.seconds is not None or place.at > 1):  # it was faster, or had fewer heartbeats to give
            for old in (folder, f"{folder}.tmp"):
                shutil.rmtree(old)
            place = Place(place.at - 1, "before") if place.seconds is None else Place(seconds=place.seconds / 2)
            killed = _forked(folder, task.words, place)
        answers.append((folder, killed))
        shutil.copytree(folder, f"{folder}.killed", symlinks=True)
        answers.append((folder, _forked(folder, task.words, Place())))
    Path("ended").write_text(json.dumps(answers))


def _begin(folder: str) -> None:
    if os.path.exists("begin"):
        shutil.copytree("begin", folder)
    else:
        os.mkdir(folder)


def _forked(folder: str, words: Sequence[str], place: Place) -> Ended:
    if not os.path.exists(folder):
        _begin(folder)
        os.mkdir(f"{folder}.tmp")
    kept = [f"{folder}.{name}" for name in ("out", "err", "changes")]
    began = time.monotonic()
    if not (number := os.fork()):
        _command(folder, [word.replace("{folder}", folder) for word in words], place, kept)
    if place.seconds is not None:
        while time.monotonic() - began < place.seconds and not _ended(number):
            time.sleep(0.01)
        os.kill(number, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
    seconds = time.monotonic() - began
    said, complained, changed = (Path(name).read_text() for name in kept)
    return Ended(status, said, complained, changed.splitlines(), seconds, _outliving(number))


def _command(folder: str, words: list[str], place: Place, kept: list[str]) -> None:
    """In a process of its own: the command, with what it says in files."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for each in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_DFL)
    out, err, changes = (os.open(name, os.O_CREAT | os.O_TRUNC | os.O_WRONLY) for name in kept)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.environ["TMPDIR"] = tempfile.tempdir = os.path.abspath(f"{folder}.tmp")
    os.chdir(folder)
    _watch(place, changes)
    sys.argv = ["glimpsezoo", *words]
    from glimpsezoo.commands import program

    program()


def _ended(number: int) -> bool:
    """Whether a child has ended, whose exit status is not asked for yet."""
    return os.waitid(os.P_PID, number, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _outliving(session: int) -> list[str]:
    """What still runs of a session that should have ended."""
    began = time.monotonic()
    while (found := _members(session)) and time.monotonic() - began < LONG:
        time.sleep(0.05)
    return found


def _members(session: int) -> list[str]:
    """The command lines of the processes of a session that have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, _, its, *_ = stat.read_text().rpartition(")")[2].split()
            if int(its) == session and state not in "ZX":
                found.append(stat.with_name("cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def _watch(place: Place, log: int) -> None:
    """From now on, write every change to `log`, and kill this process at `place`."""
    seen: list[str] = []

    def change(what: str, path: Any, do: Callable[[], Any]) -> Any:
        if str(path).startswith("/dev/"):
            return do()
        seen.append(what)
        os.write(log, f"{what} {path}\n".encode())
        here = len(seen) == place.at
        if here and place.when == "before":
            _die()
        try:
            found = do()
            if here and place.when == "torn":
                return _Torn(found)
        finally:  # also of a folder that is there already
            if here and place.when == "after":
                _die()
        return found

    def watched(name: str) -> Callable[..., Any]:
        plain = getattr(os, name)
        return lambda path, *given, **more: change(name, path, lambda: plain(path, *given, **more))

    plain_descriptor, plain_open = os.open, io.open

    def descriptor(path: Any, flags: int, *given: Any, **more: Any) -> Any:
        do = lambda: plain_descriptor(path, flags, *given, **more)  # noqa: E731
        return change("open", path, do) if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC) else do()

    def opened(path: Any, mode: str = "r", *given: Any, **more: Any) -> Any:
        do = lambda: plain_open(path, mode, *given, **more)  # noqa: E731
        if isinstance(path, int) or not set(mode) & set("wax+"):
            return do()
        return change("open" if os.path.isdir(path) else "write", path, do)  # a file without a name in a folder is not torn

    for name in ("replace", "rename", "unlink", "remove", "mkdir", "rmdir", "link", "symlink", "truncate"):
        setattr(os, name, watched(name))
    os.open, io.open, builtins.open = descriptor, opened, opened
    for library in filter(None, map(sys.modules.get, ("httpx", "httpx2"))):  # of the Hub's client, if the setup imports it
        request = library.HTTPTransport.handle_request
        library.HTTPTransport.handle_request = lambda self, asked, request=request: change(
            "request", f"{asked.method} {asked.url}", lambda: request(self, asked)
        )


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class _Torn:
    """A file of which half of the first content is written."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def __enter__(self) -> "_Torn":
        return self

    def __exit__(self, *error: object) -> None:
        _die()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write(self, content: Any) -> None:
        self.file.write(content[: len(content) // 2])
        self.file.flush()
        _die()


if __name__ == "__main__":
    _serve(Task(*json.loads(sys.argv[1])))
