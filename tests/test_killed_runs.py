"""`run` killed before and after each of its changes of the file system, and in the middle of each file."""

import json
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from command_line import ask, photo_card, photos
from killed import KILLED, kill_everywhere

from glimpsezoo.files import finish_replacing, replace_all
from glimpsezoo.reports.readme import card_text
from glimpsezoo.zoo.cards import Card
from glimpsezoo.zoo.results import evidence, read_result, rows_of

pytestmark = pytest.mark.repository

SMALL_UNITS = "from glimpsezoo.evaluation import jobs; jobs.UNIT = 10"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder `begin` in an empty folder: a card and the images that it is of."""
    begin = tmp_path / "killed" / "begin"
    photos(begin / "photos", per_class=7, side=12, split="test")
    photos(begin / "photos", per_class=2, side=12, split="train")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(begin)
        photo_card(Path("zoo_cards/small"), size=12)
    return begin.parent


def left_behind(folder: Path) -> list[str]:
    return [
        str(path) for path in folder.rglob("*") if path.name.endswith(".part") or path.parent.name == "claims" or ".written" in path.name
    ]


def without_times(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text())
    return {**found, "run": {**found["run"], "started": 0, "finished": 0, "units": 0}, "hashes": 0}


@pytest.mark.parametrize("most", [3, pytest.param(None, marks=pytest.mark.slow)])
def test_a_run_that_is_killed_goes_on_and_leaves_nothing_behind(here: Path, most: int | None) -> None:
    whole, killed = kill_everywhere(here, ["run", "small", "--measure", "quick", "-o", "out"], most=most, setup=SMALL_UNITS)
    assert whole.status == 0
    expected = without_times(here / "whole/out/small/result.json")
    rows = rows_of(here / "whole/out/small", read_result((here / "whole/out/small/result.json").read_bytes()))
    assert rows is not None
    for folder, first, again in killed:
        assert (first.status, again.status) == (KILLED, 0), again.err
        assert without_times(folder / "out/small/result.json") == expected
        found = rows_of(folder / "out/small", read_result((folder / "out/small/result.json").read_bytes()))
        assert found is not None
        assert found.to_table() == rows.to_table()
        assert left_behind(folder) == []


@pytest.mark.parametrize("most", [4, pytest.param(None, marks=pytest.mark.slow)])
def test_a_card_whose_update_is_killed_has_its_old_evidence_or_the_new(here: Path, most: int | None) -> None:
    _, killed = kill_everywhere(here, ["run", "small", "--measure", "accuracy", "--update-card"], most=most, setup=SMALL_UNITS)
    texts = set[str]()
    for case in killed:
        assert (case.killed.status, case.again.status) == (KILLED, 0), case.again.err
        for place in (case.left, case.folder):
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(place)
                card = Card.read(Path("zoo_cards/small"))  # as any command does
                known = evidence(card)
                if known:
                    assert rows_of(card.folder, known) is not None
                    assert (card.folder / "README.md").read_text() == card_text(card, known)
                texts.add("new" if known else "old")
        assert known
        assert left_behind(case.folder) == []
    assert texts == {"old", "new"}


def test_files_are_replaced_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        (tmp_path / name).write_text("old")
    real, calls = os.replace, list[Any]()

    def dies(*places: Any) -> None:
        calls.append(places)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(*places)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dies)
        with pytest.raises(KeyboardInterrupt):
            replace_all(tmp_path, {"a": b"new", "b": b"new", "c": None, "d": b"new"})
    finish_replacing(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys("abd", "new")
    finish_replacing(tmp_path)  # nothing to do


def test_files_are_replaced_in_their_order_whatever_their_number_and_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"f{number}" for number in range(12)]
    replace_all(tmp_path, dict.fromkeys(names, b""))
    assert all((tmp_path / name).read_bytes() == b"" for name in names)
    moved, real = list[str](), os.replace
    monkeypatch.setattr(os, "replace", lambda old, new: moved.append(Path(new).name) or real(old, new))
    replace_all(tmp_path, {**dict.fromkeys(names, b"new"), "f3": None})
    assert moved == [name for name in names if name != "f3"]
    assert {path.name for path in tmp_path.iterdir()} == {*moved}


def _replace(folder: Path, word: str, times: int) -> None:
    for _ in range(times):
        replace_all(folder, {"a": word.encode(), "b": word.encode()})


def test_processes_that_replace_files_at_once_all_succeed(tmp_path: Path) -> None:
    with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
        for found in [pool.submit(_replace, tmp_path, word, 150) for word in ("one", "two")]:
            found.result()
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}


def test_a_folder_that_stays_in_the_way_is_an_error(tmp_path: Path) -> None:
    (tmp_path / ".written-aside").mkdir()
    (tmp_path / ".written-aside" / "mine").touch()
    with pytest.raises(OSError, match="not empty"):
        replace_all(tmp_path, {"a": b"new"})
    assert [path.name for path in tmp_path.iterdir()] == [".written-aside"]


def test_what_is_not_written_aside_by_this_package_stays(tmp_path: Path) -> None:
    aside, elsewhere = tmp_path / ".written-aside", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "0.mine").write_text("mine")
    aside.symlink_to(elsewhere)
    finish_replacing(tmp_path)
    assert (elsewhere / "0.mine").exists()


@pytest.mark.parametrize(
    ("words", "file"),
    [
        (["trace", "small", "--index", "1", "-o", "mine.png"], "mine.png"),
        (["trace", "small", "--index", "1", "--html", "-o", "mine.html"], "mine.html"),
        (["report", "small", "-o", "mine.html", "--traces", "1"], "mine.html"),
    ],
)
def test_a_picture_or_page_that_was_finished_is_not_refused(
    here: Path, words: list[str], file: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same command may have been killed after it had written its file. Another's file stays."""
    monkeypatch.chdir(here / "begin")
    if words[0] == "report":
        assert ask(capsys, "run", "small", "--measure", "accuracy", "--update-card").status == 0
    assert ask(capsys, *words).status == 0
    content = Path(file).read_bytes()
    assert ask(capsys, *words).status == 0
    assert Path(file).read_bytes() == content
    Path(file).write_bytes(content + b" ")
    found = ask(capsys, *words)
    assert found.status == 2
    assert "which exists: choose another --output, or --force" in found.err
    assert Path(file).read_bytes() == content + b" "
