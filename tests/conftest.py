"""Fixtures that several files share. They import what they need when they run: by then tensor signatures are checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from command_line import Answer
    from hub_client import Client
    from hub_server import HubServer


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, in whose empty zoo_cards alone cards are found."""
    from command_line import lonely

    lonely(monkeypatch, tmp_path)
    return tmp_path


@pytest.fixture
def say(here: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Runs `glimpsezoo WORDS...` there."""
    from command_line import ask

    return lambda *words: ask(capsys, *words)


@pytest.fixture
def run(say: Callable[..., Answer]) -> Callable[..., Answer]:
    """Runs `glimpsezoo run WORDS...` there."""
    return partial(say, "run")


@pytest.fixture
def train(say: Callable[..., Answer]) -> Callable[..., Answer]:
    """Runs `glimpsezoo train WORDS...` there."""
    return partial(say, "train")


@pytest.fixture
def refused(here: Path, say: Callable[..., Answer]) -> Callable[..., str]:
    """Runs a command there that must be refused and must write nothing, and gives its one line."""
    from command_line import one_line, tree

    def refuse(*words: str | Path) -> str:
        before = tree(here)
        answer = say(*words)
        assert tree(here) == before
        return one_line(answer)

    return refuse


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a person read standard output: lists are tables."""
    monkeypatch.setattr("glimpsezoo.commands.options.on_terminal", lambda: True)


@pytest.fixture
def hub() -> Iterator[HubServer]:
    """A Hub on the loopback address; nobody else may be asked."""
    from hub_server import HubServer

    with HubServer() as server:
        yield server
        assert server.strangers == []


@pytest.fixture
def client(hub: HubServer, tmp_path: Path) -> Client:
    from hub_client import Client

    return Client(hub, tmp_path)
