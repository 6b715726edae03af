"""A grid at work: the request of each cell, and grid.json with one table over all cells."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from glimpsezoo.files import output_to, write_whole
from glimpsezoo.measures.result import Result
from glimpsezoo.measures.shown import Cell as Shown
from glimpsezoo.measures.shown import Entry, Table
from glimpsezoo.reports.seeds import Seeds, SeedSpread, board_of, by_seeds, numbers_of
from glimpsezoo.run.grid import Cell
from glimpsezoo.run.request import RunRequest
from glimpsezoo.schema import SCHEMA, Section
from glimpsezoo.zoo.results import read_result

GRID = "grid.json"
LABELS = ("data", "settings", "condition")


@dataclass(frozen=True)
class CellOutcome:
    """What came of a cell."""

    cell: Cell
    results: tuple[Result, ...] = ()
    written: tuple[Path, ...] = ()
    """The result.json of every model."""
    error: str = ""
    """Why there is no result, or why units of it failed; '' if all is done."""


class GridCell(Section):
    """A cell in grid.json."""

    name: str
    """Its folder within that of the grid."""
    model: str
    """As in the grid."""
    data: str | None
    """As in the grid; null for the data of the model's card."""
    settings: dict[str, str]
    """Key of `--set` -> value."""
    condition: str | None
    """clean, a corruption or an attack; null in a grid without conditions."""
    noise_seed: int
    """The seed of the run."""
    status: Literal["done", "failed"]
    """'failed' if there is no result, or if units of it failed."""
    error: str | None
    """Why, in one line."""
    results: tuple[str, ...]
    """Its result.json files, relative to the folder of the grid."""


class GridRow(Section):
    """A row of the table of a grid: a model, its data, settings and condition, over all seeds."""

    model: str
    """Its name, without a training seed."""
    data: str
    """Data set and split."""
    settings: str
    """Those that the grid varies."""
    condition: str
    """'' in a grid without conditions."""
    training_seeds: tuple[int, ...]
    """Seeds of the trainings; empty where no card tells them."""
    noise_seeds: tuple[int, ...]
    """Seeds of the runs."""
    numbers: dict[str, SeedSpread]
    """Heading -> the number at the last step, over the seeds."""


class Grid(Section):
    """grid.json: what a grid measured."""

    schema_version: Literal[1] = Field(default=SCHEMA, alias="schema")
    """Version of these keys."""
    command: str
    """As typed, paths by their base name."""
    shard: str | None
    """Which part of the grid this is, K/N; null for all of it."""
    cells: tuple[GridCell, ...]
    """The runs."""
    rows: tuple[GridRow, ...]
    """Their numbers over the seeds."""


def request_of(cell: Cell, base: RunRequest, folder: Path, options: dict[str, Any], words: tuple[str, ...]) -> RunRequest:
    """The run of a cell. base: what all cells share."""
    return replace(
        base,
        models=(cell.model,),
        data=cell.data,
        seed=cell.seed,
        sets=cell.sets,
        measures=cell.measures(None if base.measures is None else ",".join(base.measures)),
        output=folder / cell.name,
        options=options,
        words=words,
    )


def read_outcome(cell: Cell, written: Sequence[Path]) -> CellOutcome:
    """The outcome of a cell whose results are there."""
    return outcome_of(cell, [read_result(path.read_bytes()) for path in written], written)


def outcome_of(cell: Cell, results: Sequence[Result], written: Sequence[Path]) -> CellOutcome:
    errors = [failure.error for result in results for failure in result.errors]
    return CellOutcome(cell, tuple(results), tuple(written), errors[0] if errors else "")


def grid_record(outcomes: Sequence[CellOutcome], folder: Path, command: str, shard: str | None) -> Grid:
    """What grid.json says."""
    cells = [
        GridCell(
            name=each.cell.name,
            model=each.cell.model,
            data=each.cell.data,
            settings=each.cell.settings,
            condition=each.cell.condition,
            noise_seed=each.cell.seed,
            status="failed" if each.error else "done",
            error=each.error or None,
            results=tuple(path.relative_to(folder).as_posix() for path in each.written),
        )
        for each in outcomes
    ]
    rows = [_row(group) for group in grouped(outcomes)]
    return Grid(command=command, shard=shard, cells=tuple(cells), rows=tuple(rows))


def write_grid(record: Grid, folder: Path) -> Path:
    """Write grid.json; that of a shard has its number in the name, as shards may run at the same time."""
    path = folder / (GRID if record.shard is None else f"grid.shard-{record.shard.replace('/', '-of-')}.json")
    with output_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, record.to_json().encode())
    return path


def grouped(outcomes: Iterable[CellOutcome]) -> list[Seeds]:
    """The results, all seeds of one model, data, settings and condition together."""
    labels: dict[int, tuple[str, ...]] = {}
    entries = []
    for each in outcomes:
        said = ", ".join(f"{key}={value}" for key, value in each.cell.settings.items())
        for result in each.results:
            entry = Entry(result.model.name, result)
            labels[id(entry)] = (entry.data, said, each.cell.condition or "")
            entries.append(entry)
    return by_seeds(entries, lambda entry: labels[id(entry)])


def grid_table(outcomes: Sequence[CellOutcome]) -> Table:
    """One row per model, data, settings and condition: mean and spread over the seeds; then a row per failed cell.

    Labels that all rows share are left out.
    """
    whole = board_of(grouped(outcomes), LABELS)
    rows = list(whole.rows)
    for each in outcomes:
        if each.error and not each.results:
            settings = ", ".join(f"{key}={value}" for key, value in each.cell.settings.items())
            said = (each.cell.model, each.cell.data or "", settings, each.cell.condition or "", f"FAILED (noise seed {each.cell.seed})")
            rows.append((*map(Shown, said), *(Shown("") for _ in whole.headings[len(said) :]))[: len(whole.headings)])
    kept = [k for k, heading in enumerate(whole.headings) if heading not in LABELS or len({row[k].text for row in rows}) > 1]
    return Table("", tuple(whole.headings[k] for k in kept), tuple(tuple(row[k] for k in kept) for row in rows), whole.words)


def _row(group: Seeds) -> GridRow:
    data, settings, condition = group.labels
    return GridRow(
        model=group.name,
        data=data,
        settings=settings,
        condition=condition,
        training_seeds=tuple(group.training),
        noise_seeds=tuple(group.noise),
        numbers=numbers_of(group),
    )
