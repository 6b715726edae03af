"""What a paper printed: the TOML file beside a plugin that holds its tables, and says which card of the zoo answers for each row."""

import tomllib
from importlib.resources import files
from typing import Literal, Self

from pydantic import Field

from glimpsezoo.errors import GlimpseZooError, one_line
from glimpsezoo.settings import Settings
from glimpsezoo.specs import PaperSpec


class PrintedRow(Settings):
    """A row of a table.

    method: in the paper's words. printed: its number in per cent, or words where the paper gives no number. cost: printed MACs, or the
    speed-up in a table of those. parameters: their printed number. locations: the printed number of places an image was looked at, beyond
    the first; where one row has it, ours stands beside every row. card: the card that answers for it, or the recipe that trains it; none
    for what is no model of the plugin.

    step: of the card's looks, the one that the row stops at; the last by default. confidence: the row's images exit by the confidence
    rule at this threshold. attack, attack_steps: in a table of attacked accuracy. module: the row is of this submodule alone, by its dotted
    name, an input at a time. series: the line of the table's plot that the row is a point of. note: what a reader must know of our number,
    beside it.
    """

    method: str = Field(min_length=1)
    printed: float | str | None = None
    cost: float | None = Field(None, gt=0)
    parameters: int | None = Field(None, gt=0)
    locations: float | None = Field(None, gt=0)
    card: str | None = None
    step: int | None = Field(None, ge=1)
    confidence: float | None = Field(None, gt=0, le=1)
    attack: str | None = None
    attack_steps: int | None = Field(None, ge=1)
    module: str | None = None
    series: str | None = None
    note: str = ""


class PrintedTable(Settings):
    """A table, or the numbers of a figure.

    number: what `printed` is in per cent: top-1 accuracy, error, mean accuracy under corruptions, or accuracy under an attack.
    speed_up_over: the card whose MACs over a row's own are the row's cost; without it, costs are MACs. convention: import string of
    `convention(model, step) -> MACs`, where the table counts differently from `GlimpseModel.paper_macs`. needs: what it takes to run it.
    notes: what a reader must know of the printed numbers.
    """

    title: str = Field(min_length=1)
    caption: str
    number: Literal["top-1", "error", "corrupted", "attacked"] = "top-1"
    speed_up_over: str | None = None
    convention: str | None = None
    needs: str = ""
    notes: tuple[str, ...] = ()
    row: tuple[PrintedRow, ...] = Field(min_length=1)


class PrintedTables(Settings):
    """All of a paper's."""

    table: tuple[PrintedTable, ...] = Field(min_length=1)

    @classmethod
    def of(cls, spec: PaperSpec) -> Self:
        """Read from the package that the spec names. Raises `GlimpseZooError` for what is no such file."""
        try:
            text = (files(spec.tables) / f"{spec.name}.toml").read_text(encoding="utf-8")
            values = tomllib.loads(text)
        except (OSError, ImportError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise GlimpseZooError(
                f"expected the tables of a paper in {spec.tables}/{spec.name}.toml, got none: {one_line(error)}"
            ) from None
        return cls.parse(values, owner=f"paper {spec.name}")
