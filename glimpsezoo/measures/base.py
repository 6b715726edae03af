"""What a measure is: it plans work, turns the outcome into its section of result.json, and says how that section is shown.

A measure is one file. A run goes through the measures: `of` (what the user asked of it), `prepare`, `plan`, then `section`. Reports go
through them again: `columns`, `footnotes`, `card_text`, `tables` and `figures` read sections alone, wherever they were measured.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, Self, TypeVar, runtime_checkable

import torch

from glimpsezoo.conditions.base import Clean, Condition
from glimpsezoo.conditions.corruptions.published import CorruptedFolders
from glimpsezoo.core.exits import ExitRule, Fixed
from glimpsezoo.core.protocol import GlimpseModel
from glimpsezoo.data.base import ImageData, OnBadImage
from glimpsezoo.evaluation.jobs import Job
from glimpsezoo.evaluation.measuring import Evaluation, EvaluationConfig
from glimpsezoo.evaluation.memory import BatchSize, Parts
from glimpsezoo.evaluation.plan import Planned
from glimpsezoo.evaluation.rows import Rows
from glimpsezoo.measures.calibration import Calibration, exit_settings, rule_without_loss
from glimpsezoo.measures.result import Result
from glimpsezoo.measures.shown import Column, Entry, Figure, Layout, Table
from glimpsezoo.schema import Section
from glimpsezoo.settings import NoSettings, Settings
from glimpsezoo.specs import Spec

S = TypeVar("S", bound=Spec)


@runtime_checkable
class Catalogue(Protocol):
    """What is registered."""

    def all(self, kind: type[S]) -> Sequence[S]:
        """All of a kind, in the order of their names."""
        ...

    def find(self, kind: type[S], name: str) -> S:
        """The one of that name. Raises `GlimpseZooError`."""
        ...


@runtime_checkable
class Sets(Protocol):
    """The `--set` values of a run."""

    def of(self, scope: str) -> Mapping[str, str]:
        """Those that begin with `scope.`, without it."""
        ...


@dataclass(frozen=True)
class Asked:
    """What a user asked of one measure."""

    name: str
    """The measure's name: its key in result.json."""
    texts: tuple[str, ...]
    """The items of `--measure` that the measure takes; none if it is not to be measured."""
    explicit: bool
    """Whether the user named them, rather than leaving `--measure` out."""
    sets: Sets
    catalogue: Catalogue


@dataclass
class Bench:
    """What all measures of a run share: the models, the data and what was found so far."""

    names: Sequence[str]
    """Names of the models."""
    models: Sequence[GlimpseModel[Any]]
    data: ImageData
    """All images of the run."""
    few: ImageData
    """The subset that corruptions and attacks are measured on."""
    seed: int
    device: torch.device
    on_bad_image: OnBadImage
    catalogue: Catalogue
    batch_size: BatchSize = "auto"
    """As in `EvaluationConfig`; `parts` makes use of it."""
    published: CorruptedFolders | None = None
    """Published corrupted images (`--corrupted-dir`), which replace computed corruptions."""
    calibrations: dict[int, Calibration] = field(default_factory=dict)
    """By model that can exit early: the outcomes of its steps on calibration images."""
    exit_rules: dict[int, list[ExitRule]] = field(default_factory=dict)
    """By model: the exit rules that its curve of early exits is measured under. Filled while the run is planned."""
    clean: dict[int, Evaluation] = field(default_factory=dict)
    """By model: its evaluation on all clean images, which every run has. Filled while the run measures."""
    notes: dict[int, list[str]] = field(default_factory=dict)
    """By model: what was left out, and why."""
    measures: "Sequence[Measure]" = ()

    def job(self, index: int, data: ImageData, condition: Condition | None = None, rule: ExitRule | None = None) -> Job:
        """A model on some images under a condition and an exit rule."""
        return Job(self.models[index], self.names[index], data, condition or Clean(), rule or Fixed())

    def exit_rule(self, index: int, sets: Sets) -> ExitRule | None:
        """The exit rule of a model: at the target of `--set anytime.KEY`, else as `rule_without_loss` chooses. None if no image exits.

        Without calibration, only a threshold that was given makes a rule.
        """
        settings, kind = exit_settings(sets, self.catalogue)
        if (found := self.calibrations.get(index)) is not None:
            chosen = settings.chosen(found)
            return rule_without_loss(found) if chosen is None else kind(chosen)
        return kind(settings.threshold) if settings.threshold is not None and self.models[index].steps > 1 else None

    def parts(self, model: GlimpseModel[Any]) -> Parts:
        """How many images a measure gives the model at a time."""
        return Parts.of(self.batch_size, model.task, self.device)

    def note(self, index: int, text: str) -> None:
        self.notes.setdefault(index, []).append(text)

    def clean_rows(self, index: int) -> Rows | None:
        """Rows of all clean images; None if none was measured."""
        found = self.clean.get(index)
        return found.rows if found is not None and len(found.rows) else None

    def feed_forward(self, index: int) -> bool:
        """Whether a model can be a baseline: a single step that sees the whole image."""
        return is_feed_forward(self.models[index])

    def measure(self, kind: "type[M]") -> "M | None":
        """The measure of a class, if the run has it."""
        return next((each for each in self.measures if isinstance(each, kind)), None)


def is_feed_forward(model: GlimpseModel[Any]) -> bool:
    return model.steps == 1 and model.sees == "full image"


@dataclass(frozen=True)
class Update:
    """A planned run that is to replace the evidence of a card."""

    model: GlimpseModel[Any]
    baseline: bool
    """Whether anything in the run can be a baseline."""
    published: bool
    """Whether published images replace our corruptions."""


Done = Mapping[int, Mapping[Hashable, Any]]
"""The outcomes of a measure's work: model -> key -> `Evaluation`, or the section that a finding returned."""


class Measure(ABC):
    """One measure of a run, as a user asked for it."""

    record: ClassVar[Any]
    """Type of its section: a `Section`, or a tuple of some."""
    empty: ClassVar[Any] = None
    """What stands in result.json if it was not measured."""
    config: ClassVar[type[Settings]] = NoSettings
    """Its settings, `--set NAME.KEY`."""
    few: ClassVar[bool] = False
    """Whether it is measured on `Bench.few`."""
    plain: ClassVar[bool] = False
    """Whether its columns are shown in detail if no other measure has columns."""

    def __init__(self, asked: Asked, settings: Settings) -> None:
        self.name, self.asked, self.settings = asked.name, asked, settings

    # What the user asks

    @classmethod
    def takes(cls, name: str, text: str, catalogue: Catalogue) -> bool:
        """Whether an item of `--measure` is for this measure, which is registered as `name`."""
        return text == name

    @classmethod
    def scopes(cls, name: str, catalogue: Catalogue) -> list[str]:
        """What the `--set` keys of this measure begin with."""
        return [name] if cls.config is not NoSettings else []

    @classmethod
    def of(cls, asked: Asked) -> Self | None:
        """The measure; None if nothing was asked of it. Raises `GlimpseZooError` for settings that are wrong or that nothing takes."""
        settings = cls.config.parse(asked.sets.of(asked.name), owner=asked.name)
        return cls(asked, settings) if asked.texts else None

    @property
    def texts(self) -> list[str]:
        """In words, for the line that says what a run will do."""
        return [self.name]

    @property
    def uses_exits(self) -> bool:
        """Whether it needs thresholds of early exits, found on the calibration split."""
        return False

    @property
    def insists_on_exits(self) -> str:
        """The part of the request that cannot be measured without such thresholds and was named by the user; '' if there is none."""
        return ""

    # What a run does

    def prepare(self, bench: Bench) -> str:
        """Check and resolve all that is needed, before anything is measured. Returns why the measure is left out; '' if it stays.

        Raises `GlimpseZooError` if it would be left out although the user named it.
        """
        return ""

    def plan(self, bench: Bench) -> Iterable[Planned]:
        """The work of this measure for all models of the run, without `Bench.clean`, which every run measures."""
        return ()

    @abstractmethod
    def section(self, bench: Bench, index: int, done: Done) -> Any:
        """The section of one model. `empty` where all of its work failed: the errors of the result say why."""

    @property
    def without_data(self) -> bool:
        """Whether declared sizes are enough for it, so that no data need to be opened; see `section_without_data`."""
        return False

    def section_without_data(self, model: GlimpseModel[Any], config: EvaluationConfig) -> Any:
        """The section of a model for images of the size that its task declares, from a measure that is `without_data`."""
        return self.empty

    # A card's evidence

    def lost(self, known: Any, update: Update) -> Iterator[str]:
        """What this run would lack of a card's earlier section `known`, in words."""
        yield from ()

    @classmethod
    def with_model_renamed(cls, section: Any, old: str, new: str) -> Any:
        """The section with the new name of its model wherever it mentions the old one."""
        return section

    # What people read

    @classmethod
    def columns(cls, results: Sequence[Result], layout: Layout) -> Sequence[Column]:
        """Columns of a table of results; those that no result fills are left out."""
        return ()

    @classmethod
    def footnotes(cls, results: Sequence[Result], layout: Layout) -> list[str]:
        """Lines below a table of results."""
        return []

    @classmethod
    def below(cls, results: Sequence[Result]) -> Sequence[Table]:
        """Tables below the table of steps, in a terminal."""
        return ()

    @classmethod
    def card_text(cls, result: Result) -> "list[str | Table]":
        """Paragraphs (Markdown, see `glimpsezoo.escaping`) and tables of a card's README."""
        return []

    @classmethod
    def tables(cls, entries: Sequence[Entry]) -> Mapping[str, Sequence[Table]]:
        """Heading of a section of the report page -> tables in it."""
        return {}

    @classmethod
    def figures(cls, entries: Sequence[Entry]) -> Iterable[Figure]:
        """Plots of the report page."""
        return ()


M = TypeVar("M", bound=Measure)


def sections_of(done: Done, index: int, kind: type[Section]) -> list[Any]:
    """The sections of a kind among what was found of a model."""
    return [each for each in done.get(index, {}).values() if isinstance(each, kind)]
