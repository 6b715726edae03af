"""Accuracy under corruptions at severities 1 to 5, and the mean corruption error against a baseline."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import ValidationError

from glimpsezoo.conditions.base import Remembered
from glimpsezoo.conditions.corruptions.condition import Corruption
from glimpsezoo.conditions.corruptions.mce import ALEXNET, alexnet_applies, mce
from glimpsezoo.conditions.corruptions.presets import SEVERITIES, preset_for
from glimpsezoo.data.limited import Held, limited
from glimpsezoo.errors import GlimpseZooError, counted
from glimpsezoo.escaping import markdown
from glimpsezoo.evaluation.plan import Planned, evaluation_of
from glimpsezoo.evaluation.rows import Rows, common_ids
from glimpsezoo.measures.base import Asked, Bench, Catalogue, Done, Measure, Update
from glimpsezoo.measures.result import Result, by_text
from glimpsezoo.measures.robustness import budget_figures, estimate_of, share_estimate
from glimpsezoo.measures.shown import Cell, Column, Entry, Figure, Layout, Table, percent_cell
from glimpsezoo.measures.statistics import Rate
from glimpsezoo.measures.text import interval, percent
from glimpsezoo.schema import Amount, Positive, Section
from glimpsezoo.settings import Settings
from glimpsezoo.specs import CorruptionSpec
from glimpsezoo.untrusted import JSON_SIZE, json_values, read_regular

EXTRA = "extra-corruptions"  # in --measure: the corruptions outside the benchmark
TableOfRows = Mapping[str, Mapping[int, Rows]]  # corruption -> severity -> rows


class Mce(Section):
    """Mean corruption error."""

    value: Amount
    """In per cent of the baseline's error, so that the baseline has 100."""
    baseline: str
    """Name of the baseline."""


class Corruptions(Section):
    """Accuracy under corruptions."""

    implementation: str
    """The software that computed them, with its version."""
    preset: str
    """Which published constants were used, by image size."""
    n: Positive
    """Number of images per corruption and severity."""
    clean: Rate | None
    """Accuracy on the same n clean images; null if published images were read."""
    table: dict[str, tuple[Rate | None, ...]]
    """Corruption -> top-1 accuracy at severities 1 to 5; null if not measured."""
    mean: Rate
    """Mean over all measured severities of the benchmark's corruptions (of all corruptions, if none of the benchmark was measured)."""
    by_step: tuple[Rate, ...]
    """The same mean at every step."""
    mce: Mce | None
    """Null without a baseline of mCE."""


class CorruptionSettings(Settings):
    """`--set corruptions.KEY`: settings of corruptions."""

    baseline: str | None = None
    """The baseline of mCE: a model of this run, a result.json, or 'alexnet'."""


@dataclass(frozen=True)
class CorruptionWanted:
    """A requested corruption."""

    spec: CorruptionSpec
    severities: tuple[int, ...] = SEVERITIES
    """The severities to measure."""


def parse_corruption(text: str, catalogue: Catalogue) -> CorruptionWanted:
    """Parse `fog` (all severities) or `fog:3`. Raises `GlimpseZooError` for other severities than 1 to 5."""
    name, colon, severity = text.partition(":")
    spec = catalogue.find(CorruptionSpec, name)
    if not colon:
        return CorruptionWanted(spec)
    if severity not in map(str, SEVERITIES):
        raise GlimpseZooError(f"{name} expects a severity from 1 to 5, got {severity!r}: write {name}:3, for example")
    return CorruptionWanted(spec, (int(severity),))


class CorruptedMeasure(Measure):
    """Accuracy under corruptions. Each is measured on all models before the next one, so that only its images are in memory."""

    record = Corruptions
    config = CorruptionSettings
    few = True

    settings: CorruptionSettings
    """Settings of `--set corruptions.KEY`."""
    wanted: tuple[CorruptionWanted, ...]
    """The corruptions to measure."""
    reference: tuple[str, Mapping[str, float]] | None
    """Name of mCE's baseline and its mean error under each corruption; None until measured if the baseline is a model of the run."""

    @classmethod
    def takes(cls, name: str, text: str, catalogue: Catalogue) -> bool:
        return text in {name, EXTRA} or text.partition(":")[0] in {spec.name for spec in catalogue.all(CorruptionSpec)}

    @classmethod
    def of(cls, asked: Asked) -> "CorruptedMeasure | None":
        wanted: dict[str, CorruptionWanted] = {}
        for text in asked.texts:
            if text in {asked.name, EXTRA}:
                every = [spec for spec in asked.catalogue.all(CorruptionSpec) if spec.benchmark == (text == asked.name)]
                wanted |= {spec.name: CorruptionWanted(spec) for spec in every}
            else:
                one = parse_corruption(text, asked.catalogue)
                before = wanted[one.spec.name].severities if one.spec.name in wanted else ()
                wanted[one.spec.name] = CorruptionWanted(one.spec, tuple(sorted({*before, *one.severities})))
        settings = CorruptionSettings.parse(asked.sets.of(asked.name), owner=asked.name)
        if settings.baseline is not None:
            _check_benchmark_whole(wanted, _benchmark(asked.catalogue))
        if not wanted:
            return None
        found = cls(asked, settings)
        found.wanted, found.reference = tuple(wanted.values()), None
        return found

    @property
    def texts(self) -> list[str]:
        severities = sum(len(each.severities) for each in self.wanted)
        what = counted(len(self.wanted), "corruption") if len(self.wanted) > 1 else self.names[0]
        return [f"{what} ({counted(severities, 'condition')})"]

    @property
    def names(self) -> list[str]:
        return [each.spec.name for each in self.wanted]

    def prepare(self, bench: Bench) -> str:
        if bench.published is None and (why := _unsuitable(*bench.data.task.image_size)):
            if self.asked.explicit:
                raise GlimpseZooError(f"{why}: leave them out of --measure")
            return why
        self.reference = self._resolved(bench)
        return ""

    def _resolved(self, bench: Bench) -> tuple[str, Mapping[str, float]] | None:
        """The baseline of mCE if it is known before the run. Raises `GlimpseZooError` for an unsuitable one."""
        wanted, task = self.settings.baseline, bench.data.task
        if wanted is None or wanted in bench.names:
            return None
        if wanted != "alexnet":
            return _of_result(wanted, _benchmark(bench.catalogue))
        if not alexnet_applies(len(task.classes), task.image_size):
            height, width = task.image_size
            raise GlimpseZooError(
                f"corruptions.baseline=alexnet expects 1000 classes at 224 px, got {len(task.classes)} at {height} x {width}: "
                "AlexNet's errors are not published for other data; name a model of this run, or a result.json"
            )
        return "alexnet (published)", ALEXNET

    def plan(self, bench: Bench) -> Iterator[Planned]:
        """All evaluations. Published images are read without changes, the same few per corruption, and shared by all models in memory."""
        models = range(len(bench.models))
        for wanted in self.wanted:
            for severity in wanted.severities:
                data, condition, kept = bench.few, None, None
                if bench.published is None:
                    condition = kept = Remembered(Corruption(wanted.spec, severity, data.task.image_size, bench.seed))
                else:
                    data = limited(bench.published.open(wanted.spec.name, severity), len(bench.few))
                    if len(models) > 1:
                        data = kept = Held(data)
                for index in models:
                    yield evaluation_of(
                        bench.job(index, data, condition),
                        index=index,
                        key=(wanted.spec.name, severity),
                        label=f"{wanted.spec.name} {severity}",
                        seed=bench.seed,
                        together=(wanted.spec.name, severity),
                        last_of=(kept,) if kept is not None and index == models[-1] else (),
                    )

    def section(self, bench: Bench, index: int, done: Done) -> Corruptions | None:
        table, clean = _table(done, index), None if bench.published else bench.clean_rows(index)
        if not table or not bench.clean_rows(index):
            return None
        conditions = [rows for found in table.values() for rows in found.values()]
        if not len(common_ids([*conditions, *([clean] if clean is not None else [])])):
            return None  # different units of the conditions failed
        benchmark, errors, reference, value = _benchmark(bench.catalogue), errors_by_severity(table), self._reference(bench, done), None
        if reference and all(name in errors and reference[1].get(name, 0) > 0 for name in benchmark):
            value = Mce(value=mce(errors, reference[1]), baseline=reference[0])
        implementation, preset = self._made_with(bench)
        found = corruptions_section(table, clean, benchmark, implementation=implementation, preset=preset)
        return found.model_copy(update={"mce": value})

    def _reference(self, bench: Bench, done: Done) -> tuple[str, Mapping[str, float]] | None:
        """The baseline of mCE with its errors: the user's choice, or else the run's first feed-forward model."""
        if self.reference is not None:
            return self.reference
        named = self.settings.baseline
        indexes = [k for k, name in enumerate(bench.names) if (name == named if named else bench.feed_forward(k))]
        return (bench.names[indexes[0]], _means(errors_by_severity(_table(done, indexes[0])))) if indexes else None

    def _made_with(self, bench: Bench) -> tuple[str, str]:
        """The software that computed the corruptions, and the preset of their constants."""
        if bench.published is not None:
            return f"published images in {bench.published.path.resolve().name}", "published"
        conditions = [Corruption(each.spec, each.severities[0], bench.few.task.image_size, bench.seed) for each in self.wanted]
        parts = [part for each in conditions for part in each.implementation.split(", ")]
        return ", ".join(dict.fromkeys(parts)), conditions[0].preset

    def lost(self, known: Corruptions, update: Update) -> Iterator[str]:
        if _published(known) != update.published:
            yield f"corruptions by {known.implementation}"
            return
        planned = {each.spec.name: each.severities for each in self.wanted}
        found = {name: [severity for severity, cell in enumerate(cells, 1) if cell] for name, cells in known.table.items()}
        lost = [name for name, severities in found.items() if not set(severities) <= set(planned.get(name, ()))]
        if lost:
            yield counted(len(lost), "corruption") if len(lost) > 3 else f"corrupted by {', '.join(lost)}"
        elif known.mce and not (update.baseline or self.settings.baseline):
            yield f"mCE against {known.mce.baseline}, which is not measured beside it"

    @classmethod
    def with_model_renamed(cls, section: Corruptions, old: str, new: str) -> Corruptions:
        if section.mce is None or section.mce.baseline != old:
            return section
        return section.model_copy(update={"mce": section.mce.model_copy(update={"baseline": new})})

    @classmethod
    def columns(cls, results: Sequence[Result], layout: Layout) -> list[Column]:
        found = [Column("corrupted %", _mean_at)]
        return [*found, Column("mCE %", _mce_cell, higher=False, minor=True)] if layout == "board" else found

    @classmethod
    def footnotes(cls, results: Sequence[Result], layout: Layout) -> list[str]:
        if layout == "board":
            return []
        said = by_text(results, [_said(result.corruptions) if result.corruptions else "" for result in results])
        return [f"corrupted{models}: {text}." for text, models in said.items()]

    @classmethod
    def card_text(cls, result: Result) -> list[str | Table]:
        found: Corruptions = result.corruptions
        rows = tuple((Cell(name), *(Cell(percent(cell) if cell else "") for cell in cells)) for name, cells in found.table.items())
        headings = ("top-1 % at severity", "1", "2", "3", "4", "5")
        text = f"Mean {percent(found.mean)} % ({interval(found.mean)}) of {found.n} images"
        text += f", {percent(found.clean)} % as they are" if found.clean else ""
        if found.mce and found.mce.baseline != result.model.name:
            text += f"; mCE {found.mce.value:.1f} against {found.mce.baseline}"
        how = f"Measured on {found.implementation}" if _published(found) else f"Made by {found.implementation}: this is not ImageNet-C"
        return ["### Under corruptions", Table("", headings, rows, frozenset(headings)), markdown(f"{text}. {how}.")]

    @classmethod
    def tables(cls, entries: Sequence[Entry]) -> dict[str, list[Table]]:
        """Heat maps: the mean of each model under every corruption, then each model at every severity."""
        found = [entry for entry in entries if entry.result.corruptions]
        if not found:
            return {}
        names = list(dict.fromkeys(name for entry in found for name in entry.result.corruptions.table))
        rows = tuple((Cell(name), *(_heat(_severity_mean(entry, name)) for entry in found)) for name in names)
        headings = ("corruption", *(entry.name for entry in found))
        overview = Table("Top-1 % under each corruption, mean over its severities.", headings, rows, frozenset({"corruption"}))
        return {"Corruptions": [overview, *map(_heat_map, found)]}

    @classmethod
    def figures(cls, entries: Sequence[Entry]) -> Iterator[Figure]:
        yield from budget_figures("under corruptions", entries, lambda result: result.corruptions)


def corruptions_section(
    table: TableOfRows, clean: Rows | None, benchmark: Sequence[str], *, implementation: str = "", preset: str = ""
) -> Corruptions:
    """Accuracy under every corruption and severity, and the mean over those of the benchmark (over all, if none is part of it).

    table: rows by corruption and severity; no entry is empty. clean: rows of the same images without corruption; None if there are none.
    For each image that all conditions have, the share of conditions with a correct prediction is taken; the mean is over these images.
    """
    of_benchmark = [name for name in table if name in benchmark] or list(table)
    rows = [each for name in of_benchmark for each in table[name].values()]
    ids = common_ids([*rows, *([clean] if clean is not None else [])])
    same = [each.at(ids) for each in rows]
    shares = np.mean([each.hits for each in same], axis=0)  # [n, T]
    by_step = tuple(share_estimate(shares[:, step], same[0].group) for step in range(shares.shape[1]))
    return Corruptions(
        implementation=implementation,
        preset=preset,
        n=len(ids),
        clean=estimate_of(clean.at(ids)) if clean is not None else None,
        table={name: tuple(estimate_of(found.get(severity)) for severity in SEVERITIES) for name, found in table.items()},
        mean=by_step[-1],
        by_step=by_step,
        mce=None,
    )


def errors_by_severity(table: TableOfRows) -> dict[str, list[float]]:
    """Top-1 errors at severities 1 to 5 for the corruptions that were measured at all five."""
    whole = {name: found for name, found in table.items() if len(found) == len(SEVERITIES)}
    return {name: [float(1 - found[severity].hits[:, -1].mean()) for severity in sorted(found)] for name, found in whole.items()}


def _table(done: Done, index: int) -> dict[str, dict[int, Rows]]:
    """The rows of a model by measured corruption and severity."""
    table: dict[str, dict[int, Rows]] = {}
    for (name, severity), found in done.get(index, {}).items():  # type: ignore[misc]
        if len(found.rows):
            table.setdefault(name, {})[severity] = found.rows
    return table


def _benchmark(catalogue: Catalogue) -> list[str]:
    return [spec.name for spec in catalogue.all(CorruptionSpec) if spec.benchmark]


def _unsuitable(height: int, width: int) -> str:
    """Why there is no preset for images of this size; '' if there is one."""
    try:
        preset_for(height, width)
    except GlimpseZooError:
        return f"corruptions are defined for images from 32 px, got {height} x {width}"
    return ""


def _check_benchmark_whole(wanted: Mapping[str, CorruptionWanted], benchmark: Sequence[str]) -> None:
    """Raise `GlimpseZooError` unless the whole benchmark is measured: mCE, which a baseline is for, is undefined otherwise."""
    whole = [name for name in benchmark if name in wanted and wanted[name].severities == SEVERITIES]
    if len(whole) < len(benchmark):
        raise GlimpseZooError(
            f"--set corruptions.baseline expects all {len(benchmark)} corruptions of the benchmark at every severity, as mCE averages "
            f"over all of them, got {len(whole)}: add corruptions to --measure, or leave the baseline out"
        )


def _of_result(path: str, benchmark: Sequence[str]) -> tuple[str, Mapping[str, float]]:
    try:
        content = json_values(read_regular(path, JSON_SIZE))
        name, section = content["model"]["name"], content.get("corruptions")
        found = Corruptions.model_validate(section) if section is not None else None
    except (OSError, ValidationError, ValueError, KeyError, TypeError, AttributeError):
        raise GlimpseZooError(
            f"corruptions.baseline expects a model of this run, a result.json or 'alexnet', got {path!r}: name one of these"
        ) from None
    if found is None:
        raise GlimpseZooError(f"corruptions.baseline expects a result with corruptions, got {path!r} without: measure corruptions there")
    errors = _means({name: [1 - cell.value for cell in cells if cell] for name, cells in found.table.items() if all(cells)})
    lacking = [name for name in benchmark if not errors.get(name)]
    if lacking:
        raise GlimpseZooError(
            f"corruptions.baseline expects a result with errors under every corruption of the benchmark at every severity, got {path!r} "
            f"without {', '.join(lacking[:3])}{', ...' if len(lacking) > 3 else ''}: measure these there"
        )
    return name, errors


def _means(errors: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: sum(each) / len(each) for name, each in errors.items()}


def _mean_at(result: Result, step: int) -> Cell:
    return percent_cell(result.corruptions.by_step[step]) if result.corruptions else Cell("")


def _mce_cell(result: Result, _: int) -> Cell:
    found = result.corruptions.mce if result.corruptions else None
    return Cell(f"{found.value:.1f} (of {found.baseline})", found.value) if found else Cell("")


def _said(found: Corruptions) -> str:
    """How the corruptions of a result were made, in words."""
    return f"{found.n} images under {counted(len(found.table), 'corruption')} ({_made(found)})"


def _made(found: Corruptions) -> str:
    """What made the corruptions of a result, and the size that its constants are for."""
    return found.implementation + (f"; constants for {found.preset} px" if found.preset.isdecimal() else "")


def _published(found: Corruptions) -> bool:
    return found.preset == "published"


def _severity_mean(entry: Entry, name: str) -> float | None:
    values = [cell.value for cell in entry.result.corruptions.table.get(name, ()) if cell]
    return sum(values) / len(values) if values else None


def _heat_map(entry: Entry) -> Table:
    """The heat map of a model: corruptions by severity."""
    found: Corruptions = entry.result.corruptions
    rows = tuple((Cell(name), *(_heat(each.value if each else None) for each in cells)) for name, cells in found.table.items())
    caption = f"{entry.name}: top-1 % by severity on {found.n} images ({_made(found)})."
    headings = ("corruption", "1", "2", "3", "4", "5")
    return Table(caption, headings, rows, frozenset({"corruption"}), folded=f"{entry.name}: every severity")


def _heat(share: float | None) -> Cell:
    return Cell("not measured") if share is None else Cell(f"{100 * share:.1f}", 100 * share, heat=True)
