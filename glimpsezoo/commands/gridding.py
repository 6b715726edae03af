"""`run --grid FILE`: many runs by one command, one table over all of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from glimpsezoo import ranks
from glimpsezoo.commands import configuring, options, progress
from glimpsezoo.errors import GlimpseZooError, counted, one_line

if TYPE_CHECKING:
    from glimpsezoo.run.answers import Question
    from glimpsezoo.run.grid import Axes, Cell
    from glimpsezoo.run.grid_plan import CellForecast, GridForecast
    from glimpsezoo.run.grid_work import CellOutcome
    from glimpsezoo.run.request import RunRequest

_FOUND = "glimpsezoo.grid"  # in the context's `meta`
AXES = ("models", "data", "seed", "set", "measure")  # options that cells have of their own
Request = Callable[[tuple[str, ...], dict[str, Any]], "RunRequest"]


def grid_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--grid FILE` and `--shard K/N` to `run`."""
    grid = click.option(
        "--grid",
        metavar="FILE",
        is_eager=True,  # before the options whose defaults it gives
        callback=_use,
        help="Run every cell of a grid: a TOML file with lists of models, data, settings, conditions and seeds. Options that you type win.",
    )
    shard = click.option("--shard", metavar="K/N", help="With --grid: measure the K-th of N parts of the grid, for a job of its own.")
    return grid(shard(command))


def _use(context: click.Context, parameter: click.Parameter, file: str | None) -> str | None:
    """Read the file, whose keys beside the lists are defaults of the command's options."""
    if file is None or context.resilient_parsing:
        return file
    from glimpsezoo.run.grid import Axes

    axes, others = Axes.read(Path(file))
    if axes.seeds is not None and "seed" in others:
        raise GlimpseZooError("--grid expects 'seeds' or 'seed', got both: keep one of them in the file")
    found = configuring.as_options(others, context.command, "--grid")
    context.meta[_FOUND] = axes, found.get(configuring.SETTINGS, ())
    context.default_map = {**(context.default_map or {}), **configuring.as_defaults(found, context.command)}
    return file


def run_grid(models: tuple[str, ...], given: dict[str, Any], request: Request) -> int:
    """Run all cells, or plan them, print one table, and return the exit status: 1 if a cell failed."""
    from glimpsezoo.run.grid import Shard, expand, folder_of

    if given["update_card"]:
        raise GlimpseZooError(
            "--grid expects no --update-card, got both: measure each card by itself ('glimpsezoo run CARD --update-card')"
        )
    shard = None if given["shard"] is None else Shard.parse(given["shard"])
    axes, given["sets"] = _axes(models, given), ()
    given["checkpoint"] = options.as_card(given["checkpoint"], axes.models, given["data"])
    cells, folder = expand(axes, given, click.get_current_context().meta[_FOUND][0]), folder_of(Path(given["grid"]), given)
    named = {cell.name: cell for cell in cells}
    asked = {name: _options(cell, given) for name, cell in named.items()}
    questions = {name: _question(cell, given, asked[name], folder) for name, cell in named.items()}  # before torch is loaded

    from glimpsezoo.run.answers import recall
    from glimpsezoo.run.grid_plan import check_cells, weights
    from glimpsezoo.run.grid_work import read_outcome, request_of
    from glimpsezoo.run.prepare import reach_workers, store_of

    base = replace(request(("",), given), output=folder)
    requests = {
        name: request_of(cell, base, folder, asked[name], configuring.words_with("run", asked[name])) for name, cell in named.items()
    }
    check_cells(cells, requests)
    store_of(base)  # all cells would fail without it
    said = counted(len(cells), "cell")
    if shard is not None:
        cells = [cells[place] for place in shard.chosen(weights(list(requests.values())))]
        said = f"{said}, {len(cells)} of them in shard {shard}"
    if given["dry_run"]:
        options.say(f"grid of {said}")
        plan = _planned(cells, requests, folder, base)
        _print_plan(plan, as_json=given["as_json"])
        return 1 if plan.wrong else 0
    known = {cell.name: answer for cell in cells if (answer := recall(questions[cell.name])) is not None}
    if len(known) < len(cells):
        reach_workers(replace(base, models=axes.models))
    options.say(f"grid of {said}; results in {folder}")
    outcomes = []
    for number, cell in enumerate(cells, 1):
        if cell.name in known:  # everything that decided it is as it was
            outcomes.append(read_outcome(cell, known[cell.name].results))
        else:
            outcomes.append(_measured(cell, f"cell {number} of {len(cells)}", requests[cell.name], questions[cell.name]))
    return _finished(outcomes, folder, None if shard is None else str(shard), as_json=given["as_json"])


def _axes(models: tuple[str, ...], given: Mapping[str, Any]) -> "Axes":
    """The lists of the file, with what was typed in their place."""
    context, sources = click.get_current_context(), click.core.ParameterSource
    axes, settings = context.meta[_FOUND]

    def typed(name: str) -> Any:
        return given[name] if context.get_parameter_source(name) is sources.COMMANDLINE else None

    plain = [text for text in settings if text.partition("=")[0] not in axes.settings]
    return axes.with_typed(models, typed("data"), typed("seed"), (*plain, *given["sets"]))


def _options(cell: "Cell", given: Mapping[str, Any]) -> dict[str, Any]:
    """The options that make the run of a cell, by key, as command.toml has them."""
    own = {*AXES, *configuring.FILES, *configuring.OUTCOME}
    common = {key: value for key, value in configuring.given_options((), ()).items() if key not in own}
    measures = cell.measures(given["measure"])
    found = {
        "models": [cell.model],
        "data": cell.data,
        **common,
        "seed": cell.seed,
        "set": dict(cell.settings),
        "measure": None if measures is None else ",".join(measures),
    }
    return {key: value for key, value in found.items() if value is not None and value != {}}


def _question(cell: "Cell", given: Mapping[str, Any], asked: Mapping[str, Any], folder: Path) -> "Question | None":
    """The question whose answer the run of a cell is, as `run` would ask it."""
    from glimpsezoo.run.answers import question_of

    own = {"models": (cell.model,), "data": cell.data, "seed": cell.seed, "sets": cell.sets, "measure": asked.get("measure")}
    rest = {**given, **own, "output": str(folder / cell.name), "grid": None, "shard": None, "as_json": False}
    return question_of(rest, {}, configuring.words_with("run", asked))


def _measured(cell: "Cell", place: str, request: "RunRequest", question: "Question | None") -> "CellOutcome":
    """Run one cell, and say what came of it. Whatever goes wrong is the error of this cell alone, unless those who work are lost."""
    from glimpsezoo.evaluation.environment import keep_freed_memory
    from glimpsezoo.run.answers import remember
    from glimpsezoo.run.finishing import finish
    from glimpsezoo.run.grid_work import CellOutcome, outcome_of
    from glimpsezoo.run.prepare import prepare

    keep_freed_memory()
    try:
        work = prepare(request)
        progress.follow_work(work)
        outcome = finish(work)
    except ranks.ProcessLostError:
        raise
    except Exception as error:  # a model, its data or a plugin may fail in any way; the other cells do not depend on it
        why = one_line(error) if isinstance(error, GlimpseZooError) else f"{type(error).__name__}: {one_line(error)}"
        found, said = CellOutcome(cell, error=why), f"FAILED ({why})"
    else:
        remember(question, work, outcome, "")
        found, said = outcome_of(cell, outcome.results, outcome.written), outcome.summary.partition(";")[0]
    options.say(f"{place}, {', '.join(cell.parts)}: {said}")
    return found


def _finished(outcomes: "Sequence[CellOutcome]", folder: Path, shard: str | None, *, as_json: bool) -> int:
    """Write grid.json and print the table."""
    from rich.text import Text

    from glimpsezoo.measures.accuracy import measured_text
    from glimpsezoo.reports.seeds import CAPTION
    from glimpsezoo.reports.table import terminal
    from glimpsezoo.run.grid_work import grid_record, grid_table, write_grid
    from glimpsezoo.zoo.public_names import command_line

    record = grid_record(outcomes, folder, command_line(), shard)
    path = write_grid(record, folder)
    wrong = [each for each in outcomes if each.error]
    if as_json:
        options.tell(record.to_json(), nl=False)
    else:
        console = options.stdout()
        console.print(terminal(grid_table(outcomes), console.width))
        if any(len(row.training_seeds) > 1 or len(row.noise_seeds) > 1 for row in record.rows):
            console.print(Text(CAPTION, style="dim"))
        for line in dict.fromkeys(measured_text(result) for each in outcomes for result in each.results):
            console.print(Text(line, style="dim"))
        _print_failures([(", ".join(each.cell.parts), each.error) for each in wrong])
    options.say(f"{counted(len(outcomes), 'cell')}, {len(wrong)} failed; {path}")
    return 1 if wrong else 0


def _planned(cells: "Sequence[Cell]", requests: "Mapping[str, RunRequest]", folder: Path, base: "RunRequest") -> "GridForecast":
    from glimpsezoo.run.forecast import forecast
    from glimpsezoo.run.grid_plan import grid_forecast
    from glimpsezoo.run.prepare import prepare

    seen = set[str]()
    return grid_forecast(cells, lambda cell: forecast(prepare(requests[cell.name]), seen), folder, base.device)


def _print_plan(plan: "GridForecast", *, as_json: bool) -> None:
    """A line for each cell, then the sums."""
    from glimpsezoo.commands.forecasting import print_table, time_text

    if as_json:
        options.tell(plan.to_json(), nl=False)
        return
    for note in plan.notes:
        options.say(note)
    rows = [(cell.name, f"{cell.units:,}", f"{cell.stored:,}", _time_of(cell, time_text)) for cell in plan.cells]
    print_table(("cell", "units", "stored", "time"), rows, words=("cell",))
    _print_failures([(cell.name, cell.error or "") for cell in plan.wrong])
    kind = "core-hours" if plan.device == "cpu" else f"{plan.device} hours"
    known = f"about {time_text(plan.known)}, {plan.hours:.2g} {kind}, by the units that are stored" if plan.known else ""
    unknown = f"unknown for {' and '.join(plan.unknown)}, of which no unit has been measured on this device" if plan.unknown else ""
    time = ", ".join(filter(None, (known, unknown))) or "none"
    options.tell(f"{counted(len(plan.cells), 'cell')}, {counted(plan.units, 'unit')}, {plan.stored:,} stored; time: {time}")
    options.tell(f"results would be in {plan.folder}; nothing was started")


def _time_of(cell: "CellForecast", time_text: Callable[[float | None], str]) -> str:
    if cell.error is not None:
        return "failed"
    return "none" if cell.units == cell.stored else time_text(cell.seconds)


def _print_failures(failures: Sequence[tuple[str, str]]) -> None:
    """A line for each reason, with the cells that failed for it."""
    cells: dict[str, list[str]] = {}
    for name, why in failures:
        cells.setdefault(why, []).append(name)
    for why, names in cells.items():
        others = f" and {counted(len(names) - 1, 'other cell')}" if len(names) > 1 else ""
        options.tell(f"failed: {names[0]}{others}: {why}")
