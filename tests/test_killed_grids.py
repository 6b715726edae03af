"""Grids, reports and runs with worker processes, killed: the same command again ends as if nothing had happened."""

from pathlib import Path
from typing import Any

import pytest
from command_line import ask, tree
from killed import KILLED, kill_at_moments, kill_everywhere
from test_killed_runs import SMALL_UNITS, here, left_behind, without_times

from glimpsezoo.zoo.results import read_result, rows_of

pytestmark = pytest.mark.repository

__all__ = ["here"]

GRID = 'models = ["small"]\nseeds = [0, 1]\nmeasure = "accuracy"\n'
RUN = ["run", "mgnet", "cnn4", "--limit", "12", "--measure", "accuracy,fog,contrast", "-o", "out"]  # 22 units


def everything(out: Path) -> dict[str, Any]:
    """All that a run or a grid wrote, without times."""
    found: dict[str, Any] = {path.name: path.read_text() for path in out.glob("*.json")}
    for path in out.rglob("result.json"):
        rows = rows_of(path.parent, read_result(path.read_bytes()))
        assert rows is not None
        found[path.relative_to(out).as_posix()] = without_times(path), rows.to_table()
    return found


@pytest.mark.parametrize("most", [3, pytest.param(None, marks=pytest.mark.slow)])
def test_a_grid_that_is_killed_goes_on_and_leaves_nothing_behind(here: Path, most: int | None) -> None:
    (here / "begin/grid.toml").write_text(GRID)
    whole, cases = kill_everywhere(here, ["run", "--grid", "grid.toml", "-o", "out"], most=most, setup=SMALL_UNITS)
    assert whole.status == 0, whole.err
    expected = everything(here / "whole/out")
    assert {"grid.json", "small,noise-seed=1/small/result.json"} <= expected.keys()
    for case in cases:
        assert (case.killed.status, case.again.status) == (KILLED, 0), case
        assert everything(case.folder / "out") == expected, case
        assert left_behind(case.folder) == case.temporary == [], case


@pytest.mark.parametrize("most", [3, pytest.param(None, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "words",
    [
        ["report", "small", "-o", "new/page.html", "--traces", "1"],
        pytest.param(["compare", "--paper", "ranzato-2014", "-o", "new/papers.md"], marks=pytest.mark.slow),
    ],
    ids=["report", "compare"],
)
def test_a_report_or_comparison_that_is_killed_is_whole_or_absent(
    here: Path, words: list[str], most: int | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(here / "begin")
    assert ask(capsys, "run", "small", "--measure", "accuracy", "--update-card").status == 0
    whole, cases = kill_everywhere(here, words, most=most)
    assert whole.status == 0, whole.err
    expected = tree(here / "whole")
    for case in cases:
        assert (case.killed.status, case.again.status) == (KILLED, 0), case
        assert tree(case.folder) == expected, case
        for path in (case.left / "new").rglob("[!.]*.*"):
            assert path.read_bytes() == (here / "whole" / path.relative_to(case.left)).read_bytes(), path
        assert case.temporary == [], case


@pytest.mark.parametrize("count", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_workers_whose_driver_is_killed_end_and_the_same_command_goes_on(tmp_path: Path, count: int) -> None:
    words = [*RUN, "--engine", "processes:2"]
    whole, cases = kill_at_moments(tmp_path, words, count, warm=[*RUN, "--engine", "threads"])
    assert (whole.status, whole.outliving) == (0, []), whole.err
    expected = everything(tmp_path / "whole/out")
    assert {"mgnet.digits/result.json", "comparison.json"} <= expected.keys()
    for case in cases:
        assert (case.killed.status, case.again.status) == (KILLED, 0), case
        assert case.killed.outliving == case.again.outliving == [], case
        assert everything(case.folder / "out") == expected, case
        assert left_behind(case.folder) == case.temporary == [], case
