"""Commands that are killed (SIGKILL) at a change of the file system: before it, after it, or with half of a file's content written.

A change is a file that is opened for writing, and a file or folder that is made, renamed, linked, cut or removed, by Python code. What
libraries write in C (Parquet) is not seen, but the renaming that follows is.

Every command is forked from one process (this file as a program) that has run one before, because importing takes longer than all of them.
"""

import builtins
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

When = Literal["before", "after", "torn"]
KILLED = -signal.SIGKILL


class Place(NamedTuple):
    """Where a command is killed."""

    at: int = 0
    """The number of the change, from 1; 0 lets the command end."""
    when: When = "before"
    """torn: after half of what it writes."""


class Ended(NamedTuple):
    """How a command ended."""

    status: int
    """`KILLED`, or the exit status."""
    out: str
    err: str
    changes: list[str]
    """What it changed, in order: the kind of change and the path."""


class Killed(NamedTuple):
    """A command that was killed, and the same command again."""

    folder: Path
    """The working directory of both."""
    killed: Ended
    again: Ended


def kill_everywhere(here: Path, words: Sequence[str], *, most: int | None = None, setup: str = "") -> tuple[Ended, list[Killed]]:
    """Do `glimpsezoo WORDS...` undisturbed in the folder `whole`, then in a folder for every place where it can be killed.

    here: an empty folder, in which those are made. most: the number of places, spread evenly; by default all of them. setup: Python
    statements that the process executes first (`jobs.UNIT = 10`, say); its working directory is `here`.
    """
    subprocess.run(
        [sys.executable, __file__, json.dumps([setup, list(words), most])],
        cwd=here,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
    )
    (_, whole), *cases = [(folder, Ended(*ended)) for folder, ended in json.loads((here / "ended").read_text())]
    pairs = zip(cases[::2], cases[1::2], strict=True)
    return whole, [Killed(here / folder, killed, again) for (folder, killed), (_, again) in pairs]


def places(changes: Sequence[str], most: int | None = None) -> list[Place]:
    """Where a command that makes these changes can be killed."""
    whens: tuple[When, ...] = ("before", "after", "torn")
    found = [Place(at, when) for at, change in enumerate(changes, 1) for when in whens if when != "torn" or change.startswith("write ")]
    count = len(found) if most is None else min(most, len(found))
    return [found[(2 * k + 1) * len(found) // (2 * count)] for k in range(count)]


def _serve(setup: str, words: list[str], most: int | None) -> None:
    exec(setup, {})
    from glimpsezoo.commands import main

    os.mkdir("warm")
    os.chdir("warm")
    with suppress(SystemExit):
        main(words)
    os.chdir("..")
    answers = [("whole", _forked("whole", words, Place()))]
    for place in places(answers[0][1].changes, most):
        folder = f"{place.at}-{place.when}"
        answers += [(folder, _forked(folder, words, place)), (folder, _forked(folder, words, Place()))]
    Path("ended").write_text(json.dumps(answers))


def _forked(folder: str, words: list[str], place: Place) -> Ended:
    os.makedirs(folder, exist_ok=True)
    kept = [f"{folder}.{name}" for name in ("out", "err", "changes")]
    if not (number := os.fork()):
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for each in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, signal.SIG_DFL)
        out, err, changes = (os.open(name, os.O_CREAT | os.O_TRUNC | os.O_WRONLY) for name in kept)
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.chdir(folder)
        _watch(place, changes)
        sys.argv = ["glimpsezoo", *words]
        from glimpsezoo.commands import program

        program()
    status = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
    said, complained, changed = (Path(name).read_text() for name in kept)
    return Ended(status, said, complained, changed.splitlines())


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
    _serve(*json.loads(sys.argv[1]))
