"""Commands that are killed (SIGKILL) at a change of the file system: before it, after it, or with half of a file's content written.

A change is a file that is opened for writing, and a file or folder that is made, renamed, linked, cut or removed, by Python code. What
libraries write in C (Parquet) is not seen, but the renaming that follows is.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

# Runs one command in this process, because importing takes longer than all cases, and then every case in a process that is forked from it.
SERVER = r"""
import builtins, io, json, os, signal, sys
from glimpsezoo.commands import main, program

def killed_at(at, when, log):
    seen = []

    def change(what, path, do, kept=True):
        if not kept or str(path).startswith("/dev/"):
            return do()
        seen.append(what)
        os.write(log, f"{what} {path}\n".encode())
        here = len(seen) == at
        if here and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        found = do()
        if here and when == "torn" and hasattr(found, "write"):
            return Torn(found)
        if here:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    for name in ("replace", "rename", "unlink", "remove", "mkdir", "rmdir", "link", "symlink", "truncate"):
        def patched(path, *given, _plain=getattr(os, name), _name=name, **more):
            return change(_name, path, lambda: _plain(path, *given, **more))
        setattr(os, name, patched)
    plain_os_open, plain_open = os.open, io.open

    def os_open(path, flags, *given, **more):
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        return change("open", path, lambda: plain_os_open(path, flags, *given, **more), writes)

    def opened(path, mode="r", *given, **more):
        writes = not isinstance(path, int) and set(mode) & set("wax+")
        return change("write", path, lambda: plain_open(path, mode, *given, **more), writes)

    os.open, io.open, builtins.open = os_open, opened, opened

class Torn:
    def __init__(self, file):
        self.file = file
    def __enter__(self):
        return self
    def __exit__(self, *error):
        self.file.close()
    def __getattr__(self, name):
        return getattr(self.file, name)
    def write(self, content):
        self.file.write(content[: len(content) // 2])
        self.file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

def child(folder, words, at, when):
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    os.chdir(folder)
    for stream, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{folder}.{name}", os.O_CREAT | os.O_TRUNC | os.O_WRONLY), stream)
    log = os.open(f"{folder}.changes", os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    killed_at(at, when, log)
    sys.argv = ["glimpsezoo", *words]
    program()

setup, warm, cases = json.loads(sys.argv[1])
exec(setup)
os.makedirs("warm")
os.chdir("warm")
try:
    main(warm)
except SystemExit as end:
    assert not end.code, warm
os.chdir("..")
here, answers = os.getcwd(), []
for folder, words, at, when in cases:
    folder = f"{here}/{folder}"
    os.makedirs(folder, exist_ok=True)
    if not (number := os.fork()):
        child(folder, words, at, when)
    status = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
    answers.append([status, *(open(f"{folder}.{name}").read() for name in ("out", "err")), open(f"{folder}.changes").read().splitlines()])
open("answers", "w").write(json.dumps(answers))
"""
When = Literal["before", "after", "torn"]
KILLED = -9


class Case(NamedTuple):
    """A command in a folder of its own below the test's. Cases of one folder follow each other there."""

    folder: str
    words: Sequence[str]
    at: int = 0
    """The change at which it is killed, from 1; 0 lets it end."""
    when: When = "before"
    """torn: after half of what the change writes; if it writes nothing, after it."""


class Ended(NamedTuple):
    status: int
    """`KILLED`, or the exit status."""
    out: str
    err: str
    changes: list[str]
    """What it changed, in order: the kind of change and the path."""


def answers(here: Path, warm: Sequence[str], cases: Iterable[Case], *, setup: str = "") -> list[Ended]:
    """Run the cases one after the other in processes that are forked from one.

    here: an empty folder. warm: a command that this one runs first, in the folder `warm`, so that all modules are loaded; its results are
    those of an undisturbed command. setup: Python statements that the process executes at its start (`jobs.UNIT = 10`).
    """
    subprocess.run(
        [sys.executable, "-c", SERVER, json.dumps([setup, warm, list(cases)])],
        cwd=here,
        env=os.environ | {"OMP_NUM_THREADS": "1", "GLIMPSEZOO_HOME": str(here / "home")},
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return [Ended(*answer) for answer in json.loads((here / "answers").read_text())]


def places(changes: Sequence[str]) -> list[tuple[int, When]]:
    """Every place where a command that makes these changes can be killed: before and after each, and within each file that is written."""
    whens: tuple[When, ...] = ("before", "after", "torn")
    return [(at, when) for at, change in enumerate(changes, 1) for when in whens if when != "torn" or change.startswith("write ")]
