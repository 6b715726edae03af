"""What a paper printed: the TOML file beside a plugin that holds its tables and claims, and says which cards answer for each."""

import tomllib
from importlib.resources import files
from typing import Literal, Self

from pydantic import Field, model_validator

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
    name, an input at a time. share: in a table of shares, of which images: those that are first confident at `step`, those that are not
    confident by then ('rejected'), or the wrong ones among those that are ('wrong'). series: the line of the table's plot that the row is a
    point of. note: what a reader must know of our number, beside it.
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
    share: Literal["confident", "rejected", "wrong"] | None = None
    series: str | None = None
    note: str = ""


class PrintedTable(Settings):
    """A table, or the numbers of a figure.

    number: what `printed` is in per cent: top-1 accuracy, error, mean accuracy under corruptions, accuracy under an attack, or a share of
    images that exit (see `PrintedRow.share`).
    speed_up_over: the card whose MACs over a row's own are the row's cost; without it, costs are MACs. convention: import string of
    `convention(model, step) -> MACs`, where the table counts differently from `GlimpseModel.paper_macs`. needs: what it takes to run it.
    notes: what a reader must know of the printed numbers.
    """

    title: str = Field(min_length=1)
    caption: str
    number: Literal["top-1", "error", "corrupted", "attacked", "share"] = "top-1"
    speed_up_over: str | None = None
    convention: str | None = None
    needs: str = ""
    notes: tuple[str, ...] = ()
    row: tuple[PrintedRow, ...] = Field(min_length=1)


class Side(Settings):
    """One side of a claim's test: the images of a card's evidence, and how they were looked at.

    card: a card, or for costs alone a recipe. step: the look that all images stop at; the last by default. confidence: they exit by the
    confidence rule at this threshold. corrupted: mean accuracy under corruptions. attack, attack_steps: accuracy under that attack.
    """

    card: str
    step: int | None = Field(None, ge=1)
    confidence: float | None = Field(None, gt=0, le=1)
    corrupted: bool = False
    attack: str | None = None
    attack_steps: int | None = Field(None, ge=1)


class Claim(Settings):
    """A sentence that a paper draws from its tables and figures, and how the zoo's cards test it.

    quote: the paper's words. place: where they stand. printed: the numbers that they rest on.

    test: of sides a and b. 'better': a is more accurate than b. 'no worse': a is not less accurate than b by more than `margin` points.
    'at least': a has more than `percent` top-1. 'cost': b takes `factor` times the MACs of a, or a takes `percent` of those of b; models
    that nobody trained have costs, too. None: not tested, and `needs` says what it would take.

    instead: what a test that is not the paper's own (other data, other models) stands on; its verdict is of that alone. note: what a
    reader must know of the test.
    """

    quote: str = Field(min_length=1)
    place: str = Field(min_length=1)
    printed: str = ""
    test: Literal["better", "no worse", "at least", "cost"] | None = None
    a: Side | None = None
    b: Side | None = None
    margin: float = Field(0.0, ge=0)
    percent: float | None = Field(None, gt=0)
    factor: float | None = Field(None, gt=0)
    instead: str = ""
    needs: str = ""
    note: str = ""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        wanted = {"better": ("a", "b"), "no worse": ("a", "b"), "at least": ("a", "percent"), "cost": ("a", "b"), None: ("needs",)}[
            self.test
        ]
        lacking = [key for key in wanted if not getattr(self, key)]
        if self.test == "cost" and (self.factor is None) == (self.percent is None):
            lacking.append("factor or percent")
        if lacking:
            raise ValueError(f"a claim with test {self.test or 'none'} needs {' and '.join(lacking)}")
        return self


class LeftOut(Settings):
    """What a paper prints and the zoo has no row for. what: by its place. needs: what it would take, or why it is no number."""

    what: str = Field(min_length=1)
    needs: str = Field(min_length=1)


class PrintedTables(Settings):
    """All of a paper's.

    claim: the sentences that it draws from its tables. training: how cards were trained otherwise than printed, by card; it stands in their
    rows. left_out: what has no row.
    """

    table: tuple[PrintedTable, ...] = Field(min_length=1)
    claim: tuple[Claim, ...] = ()
    training: dict[str, str] = Field(default_factory=dict)
    left_out: tuple[LeftOut, ...] = ()

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
