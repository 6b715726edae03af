"""The printed numbers of a paper: a TOML file in a plugin with the paper's tables and claims, and the cards that correspond to them."""

from importlib.resources import files
from typing import Literal, Self

from pydantic import Field, model_validator

from glimpsezoo.errors import GlimpseZooError, one_line
from glimpsezoo.settings import Settings
from glimpsezoo.specs import PaperSpec
from glimpsezoo.untrusted import toml_values


class PrintedRow(Settings):
    """A row of a printed table."""

    method: str = Field(min_length=1)
    """The method, in the paper's words."""
    printed: float | str | None = None
    """The printed number in per cent, or the printed words if there is no number."""
    cost: float | None = Field(None, gt=0)
    """Printed MACs, or the printed speed-up in a table of speed-ups."""
    parameters: int | None = Field(None, gt=0)
    """Printed number of parameters."""
    locations: float | None = Field(None, gt=0)
    """Printed number of glimpses per image after the first. If one row has it, every row shows ours."""
    card: str | None = None
    """The corresponding card, or the recipe that trains it; None if the plugin does not have the method."""
    step: int | None = Field(None, ge=1)
    """All images stop at this step of the card; the last by default."""
    policy: str | None = None
    """The policy that the card follows in this row, from its evidence of the measure `policies`; None is its own."""
    confidence: float | None = Field(None, gt=0, le=1)
    """Images exit by the confidence rule at this threshold."""
    attack: str | None = None
    """Name of the attack, in a table of attacked accuracy."""
    attack_steps: int | None = Field(None, ge=1)
    """Number of steps of the attack."""
    module: str | None = None
    """The row describes only this submodule (a dotted name), on one input at a time."""
    share: Literal["confident", "rejected", "wrong"] | None = None
    """In a table of shares, which images are counted: those that first become confident at `step` ('confident'), those that are not
    confident by then ('rejected'), or the misclassified ones among the confident ('wrong')."""
    series: str | None = None
    """The line in the table's plot that this row is a point of."""
    note: str = ""
    """What a reader must know about our number; shown next to it."""


class PrintedTable(Settings):
    """A printed table, or the numbers of a figure."""

    title: str = Field(min_length=1)
    """Number of the table in the paper."""
    caption: str
    """What the table shows, in a few words."""
    number: Literal["top-1", "error", "corrupted", "attacked", "share"] = "top-1"
    """What `printed` is, in per cent: top-1 accuracy, error, mean accuracy under corruptions, accuracy under an attack, or a share of the
    images that exit (see `PrintedRow.share`)."""
    speed_up_over: str | None = None
    """The cost of a row is the MACs of this card divided by those of the row; without it, costs are MACs."""
    convention: str | None = None
    """Import string of `convention(model, step) -> MACs`, if the table counts differently from `GlimpseModel.paper_macs`."""
    costs: bool = True
    """Whether rows show our MACs. Not for a model that cannot be built on every machine."""
    needs: str = ""
    """What it takes to measure rows without a measured card."""
    notes: tuple[str, ...] = ()
    """What a reader must know about the printed numbers."""
    row: tuple[PrintedRow, ...] = Field(min_length=1)
    """The rows in the paper's order."""


class Side(Settings):
    """One side of a claim's test: the images in the evidence of a card, and how they were measured."""

    card: str
    """A card, or, if only costs are compared, a recipe."""
    step: int | None = Field(None, ge=1)
    """All images stop at this step; the last by default."""
    confidence: float | None = Field(None, gt=0, le=1)
    """Images exit by the confidence rule at this threshold."""
    corrupted: bool = False
    """Use the mean accuracy under corruptions."""
    attack: str | None = None
    """Use the accuracy under this attack."""
    attack_steps: int | None = Field(None, ge=1)
    """Number of steps of the attack; None for an attack that is measured once."""


class Claim(Settings):
    """A conclusion that a paper draws from its tables and figures, and how the zoo's cards test it."""

    quote: str = Field(min_length=1)
    """The paper's words."""
    place: str = Field(min_length=1)
    """Where they are in the paper."""
    printed: str = ""
    """The printed numbers that support them."""
    test: Literal["better", "no worse", "at least", "cost"] | None = None
    """How sides a and b are tested. 'better': a is more accurate than b. 'no worse': a is not less accurate than b by more than `margin`
    points. 'at least': a has more than `percent` top-1 accuracy. 'cost': b needs `factor` times the MACs of a, or a needs `percent` of
    those of b; untrained models have costs, too. None: not tested, and `needs` says what a test would take."""
    a: Side | None = None
    """Side a of the test."""
    b: Side | None = None
    """Side b of the test."""
    margin: float = Field(0.0, ge=0)
    """Largest difference of test 'no worse', in points."""
    percent: float | None = Field(None, gt=0)
    """Per cent, for the tests 'at least' and 'cost'."""
    factor: float | None = Field(None, gt=0)
    """Factor of test 'cost'."""
    instead: str = ""
    """What the test uses if it differs from the paper's (other data, other models); the verdict holds only for that."""
    needs: str = ""
    """What a test would take."""
    note: str = ""
    """What a reader must know about the test."""

    @property
    def sides(self) -> tuple[Side, ...]:
        """The sides that are tested: none without a test, one against a number, or two."""
        return () if self.test is None else tuple(side for side in (self.a, self.b) if side is not None)

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
    """Something that the paper prints and that has no row."""

    what: str = Field(min_length=1)
    """Where it is in the paper, and what."""
    needs: str = Field(min_length=1)
    """What a row would take, or why there is no number."""


class PrintedTables(Settings):
    """Everything in the TOML file of a paper."""

    table: tuple[PrintedTable, ...] = Field(min_length=1)
    """The printed tables."""
    claim: tuple[Claim, ...] = ()
    """The conclusions that the paper draws from them."""
    training: dict[str, str] = Field(default_factory=dict)
    """How the training of a card differs from the paper, by card; shown in the rows of the card."""
    left_out: tuple[LeftOut, ...] = ()
    """What has no row."""

    @classmethod
    def of(cls, spec: PaperSpec) -> Self:
        """Read NAME.toml from the package that the spec names. Raises `GlimpseZooError` if it is missing or invalid."""
        try:
            text = (files(spec.tables) / f"{spec.name}.toml").read_text(encoding="utf-8")
            values = toml_values(text)
        except (OSError, ImportError, ValueError) as error:
            raise GlimpseZooError(
                f"expected the tables of a paper in {spec.tables}/{spec.name}.toml, got none ({one_line(error)}): correct the file"
            ) from None
        return cls.parse(values, owner=f"paper {spec.name}")
