"""What a grid would do: the plan and the expected time of each cell, and how many images a cell has, by which shards are balanced."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.measures.attacked import AttackedMeasure
from glimpsezoo.measures.base import Measure
from glimpsezoo.measures.corrupted import CorruptedMeasure
from glimpsezoo.run.forecast import Forecast
from glimpsezoo.run.grid import Cell, in_cell
from glimpsezoo.run.parse import parse_measures, scopes
from glimpsezoo.run.prepare import FEW, check_options, images_of
from glimpsezoo.run.request import RunRequest
from glimpsezoo.schema import Section
from glimpsezoo.zoo.names import Assignments, argument_names


def weights(requests: Sequence[RunRequest]) -> list[int]:
    """How many images each cell measures, counting an image once per condition. Every shard of a grid must find the same numbers.

    Raises `GlimpseZooError` for data that cannot be counted here, because another machine might count them.
    """
    counts: dict[tuple[Any, ...], int] = {}
    found = []
    for request in requests:
        sets = Assignments.parse(request.sets, argument_names(request.models), scopes=scopes())
        key = (request.data or request.models, tuple(sorted(sets.of("data").items())))
        if key not in counts:
            counts[key] = images_of(request)
        images = counts[key]
        conditions = sum(map(_conditions, parse_measures(request.measures, sets)))
        found.append(images + min(images, request.limit or FEW) * conditions)
    return found


def _conditions(measure: Measure) -> int:
    """The conditions beside clean images that a measure evaluates."""
    if isinstance(measure, CorruptedMeasure):
        return sum(len(each.severities) for each in measure.wanted)
    return len(measure.wanted) if isinstance(measure, AttackedMeasure) else 0


def check_cells(cells: Iterable[Cell], requests: Mapping[str, RunRequest]) -> None:
    """Check the options and the conditions of all cells before one is measured. Raises `GlimpseZooError`."""
    for cell in cells:
        request = requests[cell.name]
        check_options(request)
        try:
            parse_measures(request.measures, Assignments.parse(request.sets, argument_names(request.models), scopes=scopes()))
        except GlimpseZooError as error:
            raise in_cell(cell, error) from None


class CellForecast(Section):
    """What a cell would do."""

    name: str
    model: str
    """The name in results, or as in the grid for a cell that cannot be measured."""
    units: int
    """A unit that several cells need is counted in the first of them."""
    stored: int
    """Units that are not measured again."""
    seconds: float | None
    """Expected time for the others; null if no unit of the model has been measured on this device."""
    error: str | None = None
    """Why the cell cannot be measured."""


class GridForecast(Section):
    """The plan of a grid."""

    cells: tuple[CellForecast, ...]
    folder: str
    device: str
    """Where the cells would run: cpu or cuda."""
    threads: int
    """Of a run on a CPU."""
    notes: tuple[str, ...]

    @property
    def units(self) -> int:
        return sum(cell.units for cell in self.cells)

    @property
    def stored(self) -> int:
        return sum(cell.stored for cell in self.cells)

    @property
    def wrong(self) -> list[CellForecast]:
        """The cells that cannot be measured."""
        return [cell for cell in self.cells if cell.error is not None]

    @property
    def known(self) -> float:
        """Expected seconds of the cells whose time is known."""
        return sum(cell.seconds or 0.0 for cell in self.cells)

    @property
    def unknown(self) -> list[str]:
        """The models of the cells whose time is not known."""
        return list(dict.fromkeys(cell.model for cell in self.cells if cell.seconds is None and cell.error is None))

    @property
    def hours(self) -> float:
        """The cost of the known cells: core-hours on a CPU, and otherwise hours of the device."""
        return self.known / 3600 * (self.threads if self.device == "cpu" else 1)


def grid_forecast(cells: Sequence[Cell], forecast_of: Callable[[Cell], Forecast], folder: Path, device: torch.device) -> GridForecast:
    """The plan of each cell, one after the other, so that one of them is in memory at a time.

    A cell whose model no unit of its own tells the time of is timed by the other cells of the model on the same data.
    """
    shares, errors, notes = [], {}, dict[str, None]()
    for cell in cells:
        try:
            plan = forecast_of(cell)
        except GlimpseZooError as error:
            errors[cell.name] = str(error)
            continue
        notes |= dict.fromkeys(plan.notes)
        shares += [(cell, share) for share in plan.plan]
    rates: dict[tuple[str, str | None], float] = {(cell.model, cell.data): share.rate for cell, share in shares if share.rate is not None}
    found = []
    for cell in cells:
        own = [share for owner, share in shares if owner is cell]
        rate = rates.get((cell.model, cell.data))
        times = [each.seconds if each.seconds is not None else None if rate is None else rate * each.left for each in own]
        found.append(
            CellForecast(
                name=cell.name,
                model=own[0].model if own else cell.model,
                units=sum(each.units for each in own),
                stored=sum(each.stored for each in own),
                seconds=None if None in times or cell.name in errors else sum(each or 0.0 for each in times),
                error=errors.get(cell.name),
            )
        )
    return GridForecast(cells=tuple(found), folder=str(folder), device=device.type, threads=torch.get_num_threads(), notes=tuple(notes))
