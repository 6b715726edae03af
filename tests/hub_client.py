"""Clients of the small Hub (hub_server.py): processes with the environment that a user would set."""

import contextlib
import importlib
import io
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from command_line import Answer, quickly
from hub_server import HubServer

_PROCESSES = multiprocessing.get_context("forkserver")
# What is slow to import, but no client of the Hub: that reads its environment when it is imported.
_PROCESSES.set_forkserver_preload(["command_line", "glimpsezoo.run.prepare", "torchvision"])


@dataclass(frozen=True)
class Client:
    """A user's machine: its folder with the caches, and functions that run there, each in a new process."""

    hub: HubServer
    folder: Path

    def command(self, *words: str | Path, **environment: str) -> Answer:
        """`glimpsezoo WORDS...`"""
        return Answer(*self.call(_command, *map(str, words), **environment))

    def commands(self, *commands: tuple[str | Path, ...], **environment: str) -> list[Answer]:
        """Several commands, each with whole patience, in one process."""
        return [Answer(*found) for found in self.call(_commands, [list(map(str, words)) for words in commands], **environment)]

    def call(self, function: Callable[..., Any], *arguments: Any, **environment: str) -> Any:
        """Call a function of a test module there and return its value. Raises AssertionError with its traceback."""
        ours, theirs = _PROCESSES.Pipe()
        setting = self.hub.environment(self.folder / "home", **environment)
        where = (theirs, setting, str(self.folder), function.__module__, function.__name__, arguments)
        process = _PROCESSES.Process(target=_run, args=where)
        process.start()
        theirs.close()
        try:
            done, value = ours.recv()
        except EOFError:
            done, value = False, "the process died"
        process.join()
        assert done, value
        return value


def _run(pipe: Any, setting: dict[str, str], folder: str, module: str, name: str, arguments: tuple[Any, ...]) -> None:
    """In the client's process: set its environment, then import the function's module, call the function and send its value."""
    os.environ.update(setting)
    os.chdir(folder)
    time.sleep = lambda _: None  # clients retry without waiting
    assert "huggingface_hub" not in sys.modules
    try:
        pipe.send((True, getattr(importlib.import_module(module), name)(*arguments)))
    except BaseException:
        pipe.send((False, traceback.format_exc()))


def _commands(commands: list[list[str]]) -> list[tuple[int, str, str]]:
    from glimpsezoo import waiting

    found = []
    for words in commands:
        waiting.patience.__init__()
        found.append(_command(*words))
    return found


def _command(*words: str) -> tuple[int, str, str]:
    from glimpsezoo.commands import main

    out, err, sys.argv = io.StringIO(), io.StringIO(), ["glimpsezoo", *quickly(list(words))]
    status: Any = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as stop:
            status = stop.code
    return status or 0, out.getvalue(), err.getvalue()
