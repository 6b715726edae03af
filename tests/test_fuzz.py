"""Bad input, tried systematically: no command ends with a traceback, hangs, or leaves a part of a file or a number that is none.

The suite tries a few cases of each kind, always the same ones; the slow set tries more than 2,000, other ones every time.
"""

import contextlib
import io
import json
import math
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fuzzing import KINDS, WHOLE
from hostile_files import working_folder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_escaping import hidden
from test_hostile import soon

from glimpsezoo.commands import main

FEW, MANY = 6, 220


@pytest.fixture(scope="module")
def harmless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("harmless")
    working_folder(folder)
    return folder


@pytest.fixture
def work(harmless: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of all cases of a kind."""
    monkeypatch.setenv("GLIMPSEZOO_HOME", str(tmp_path / "home"))
    shutil.copytree(harmless, tmp_path / "work")
    monkeypatch.setattr("glimpsezoo.zoo.cards.card_folders", lambda: [Path("zoo_cards")])
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def told(words: list[str]) -> tuple[int, str, str]:
    """The exit status of a command, its standard output and standard error."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", ["glimpsezoo", *words])
        try:
            main()
        except SystemExit as stop:
            return int(stop.code or 0), out.getvalue(), err.getvalue()
    raise AssertionError("main always exits")


def numbers(values: Any) -> Iterator[float]:
    """Every number in values of JSON."""
    for each in values.values() if isinstance(values, dict) else values if isinstance(values, list) else ():
        yield from numbers(each)
    if isinstance(values, int | float):
        yield values


def try_out(kind: str, work: Path, cases: int, *, always_the_same: bool) -> None:
    @settings(max_examples=cases, derandomize=always_the_same, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=st.data())
    def case(data: st.DataObject) -> None:
        words = KINDS[kind](data.draw)
        with soon():
            status, out, err = told(words)
        assert status in (0, 1, 2), (words, err)
        assert "Traceback" not in err, (words, err)
        assert "glimpsezoo: unexpected" not in err, (words, err)
        assert hidden(out + err) <= {"\n", "\t"}, (words, out, err)
        if status == 2:
            assert out == "", (words, out)
            assert err.splitlines()[-1].startswith("glimpsezoo: "), (words, err)
            assert err.count("glimpsezoo: ") == 1, (words, err)
        assert status == 0 or WHOLE not in words, (words, err)
        if words[0] == "predict" and status == 0:
            assert all(map(math.isfinite, numbers(json.loads(out)))), (words, out)
            assert 0 <= json.loads(out)["probability"] <= 1
        assert not list(work.rglob(".*.part")), words

    case()


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_cases(kind: str, work: Path):
    try_out(kind, work, FEW, always_the_same=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_cases(kind: str, work: Path):
    assert MANY * len(KINDS) >= 2000
    try_out(kind, work, MANY, always_the_same=False)
