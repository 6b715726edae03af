"""What a result says of attacks: the record of each, its names and threat model in words, its tables and plots."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from glimpsezoo.errors import counted
from glimpsezoo.measures.looks import Looks, looks_text
from glimpsezoo.measures.result import Result
from glimpsezoo.measures.shown import ACCURACY_AXIS, Axis, Cell, Entry, Figure, Layout, Line, Point, Table, percent_cell
from glimpsezoo.measures.statistics import Estimate, Rate
from glimpsezoo.measures.text import budget_text, eps_text, interval, macs_text, percent, with_interval
from glimpsezoo.schema import Amount, Count, Positive, Section

INLINE = 2  # columns of attacks in a table with a row per step; more of them have a table of their own
JUDGED = ("Linf", "pixels", "final")  # norm, space and target of the attacks that a verdict can be about; their glimpses are not frozen
SAME = ("name", "norm", "eps", "step_size", "steps", "restarts", "eot", "evaluations", "target", "path")  # in records of one attack
UNCHECKED = "not checked"
CONVERGED, EXCLUDED = 0.03, 0.1  # what the last round of a converged attack takes at most, and what its interval excludes


class ExitRuleUsed(Section):
    """The exit rule of a run."""

    rule: str
    """Its name."""
    threshold: float
    """In its unit."""


class Unattacked(Section):
    """The same images, budget and exit rule without the attack."""

    top1: Rate
    """Accuracy."""
    macs_mean: Amount
    """MACs per image."""
    steps_mean: Amount
    """Steps per image."""


class Convergence(Section):
    """Whether more iterations of the attack would lower the accuracy further."""

    converged: bool
    """Whether `gain` is at most 3 points and its 95 % interval excludes 10."""
    gain: Estimate
    """How far the last round, with twice the iterations of the one before, lowered the accuracy."""


class AttackRecord(Section):
    """Accuracy under one attack."""

    name: str
    """Name of the attack."""
    norm: str
    """In which eps is measured: Linf, L2, L0 (the number of pixels), or patch (a square's share of the area)."""
    eps: Amount
    """The most that it changes an image, in `norm` and `space`."""
    space: str
    """'pixels' means those in [0, 1]."""
    steps: Count
    """Iterations, or queries; of the first round, if there are rounds."""
    step_size: Amount
    """In `space`."""
    restarts: Count
    """Runs of which the best counts."""
    eot: Count
    """Samples that a gradient is the mean of."""
    evaluations: Count
    """Runs per image, each with its own noise, over which accuracy is averaged; one where nothing is random."""
    target: Literal["final", "any-step", "exit", "looks"]
    """Which prediction is attacked; with 'any-step', `top1` counts images that are right at every step. 'looks': none, but where the
    model looks."""
    path: Literal["free", "frozen", "detached"]
    """Whether the attacked run chooses where it looks, or keeps the clean choices (frozen). With 'detached' it chooses, but the attack's
    gradient takes its choices as given."""
    members: tuple[str, ...] = ()
    """The attacks of which this is the worst per image; empty for a single attack."""
    attack_converged: Convergence | None = None
    """Null for an attack without rounds, and in results of older versions."""
    looks: Looks | None = None
    """Where the model looks; null for an attack that does not aim at that."""
    surrogate: str | None
    """What replaces hard choices in the gradient."""
    settings: dict[str, Any]
    """Those of this attack alone."""
    exit_rule: ExitRuleUsed | None
    """Null without one."""
    n: Positive
    """Images attacked."""
    top1: Rate
    """Accuracy under the attack."""
    by_step: tuple[Rate, ...]
    """At every step."""
    macs_mean: Amount
    """MACs per image."""
    steps_mean: Amount
    """Steps per image."""
    clean: Unattacked
    """Without the attack."""

    @property
    def can_be_judged(self) -> bool:
        """Whether it is of the kind that gradient masking can judge."""
        return (self.norm, self.space, self.target) == JUDGED and self.path != "frozen"

    def is_kept_by(self, said: Mapping[str, Any], images: int | None, rounds: int) -> bool:
        """Whether an attack would lose nothing of this record. said: `Attack.described`. images: None for all. rounds: the most."""
        same = all(said[key] == getattr(self, key) for key in SAME)
        return same and (images is None or images >= self.n) and rounds >= self.settings.get("rounds", 1)

    @property
    def full_name(self) -> str:
        """The attack with its budget: accuracies under other budgets do not compare."""
        aimed = "" if self.target == "final" else f", {self.target}"
        looks = "" if self.path == "free" else f", looks {self.path}"
        steps = "" if self.members else f", {counted(self.steps, 'step')}"
        return f"{self.name} {budget_text(self.norm, self.eps)}{steps}{aimed}{looks}"


def is_converged(gain: float, high: float) -> bool:
    """Whether an attack has converged whose last round took `gain` of the accuracy. high: the upper end of its 95 % interval."""
    return gain <= CONVERGED and high <= EXCLUDED


def attack_text(record: AttackRecord, *, at_least: bool = False) -> str:
    """An attack's threat model in a few words. at_least: whether its MACs are lower bounds."""
    space = f" in {record.space}" if record.norm in ("Linf", "L2") else ""
    parts = [f"{budget_text(record.norm, record.eps)}{space}", _budget(record), f"{record.n} images"]
    if record.restarts > 1:
        parts.append(f"{record.restarts} restarts")
    if record.eot > 1:
        parts.append(f"{record.eot} samples per gradient")
    if record.evaluations > 1:
        parts.append(f"mean of {record.evaluations} evaluations")
    parts += [f"aimed at {record.target}"] if record.target != "final" else []
    parts += [f"looks {record.path}"] if record.path != "free" else []
    parts += [looks_text(record.looks)] if record.looks else []
    parts += [] if record.can_be_judged else ["not what masking judges"]
    if record.exit_rule:
        steps = f"steps {record.clean.steps_mean:.2f} -> {record.steps_mean:.2f}"
        macs = " -> ".join(macs_text(each, at_least=at_least) for each in (record.clean.macs_mean, record.macs_mean))
        parts.append(f"{steps}, MACs {macs} ({record.exit_rule.rule} {record.exit_rule.threshold:.3g})")
    return ", ".join(parts)


def _budget(record: AttackRecord) -> str:
    if not record.members:
        return counted(record.steps, "step")
    rounds = record.settings.get("rounds", 1)
    steps = [str(record.steps << number) for number in range(rounds - 1)]
    steps.append(counted(record.steps << (rounds - 1), "step"))
    return f"worst of {counted(len(record.members), 'attack')} of {' + '.join(steps)}"


def convergence_of(result: Result, record: AttackRecord) -> Convergence | None:
    """Whether an attack has converged; None if nobody knows."""
    older = result.masking.reported if result.masking and record == judged(result) else None
    return record.attack_converged or older


def converged_text(result: Result, record: AttackRecord) -> str:
    """Whether an attack has converged, with the points that its last round took and their interval."""
    found = convergence_of(result, record)
    if found is None:
        return UNCHECKED
    gain = f"{100 * found.gain.value:.1f} points ({interval(found.gain)})"
    return f"yes: a longer attack took {gain}" if found.converged else f"no: a longer attack took {gain}"


def unconverged(name: str, results: Sequence[Result]) -> list[str]:
    """A line on the models for which the attack of that full name has not converged, if there are any."""
    found = [(result.model.name, convergence_of(result, record)) for result in results if (record := record_named(result, name))]
    weak = [f"{interval(known.gain, 0)} points of {model}" for model, known in found if known is not None and not known.converged]
    return [f"<=: not converged; a longer attack took {', '.join(weak)}."] if weak else []


def attack_names(results: Sequence[Result]) -> list[str]:
    """The attacks of some results, each with its budget."""
    return list(dict.fromkeys(record.full_name for result in results for record in result.attacks))


def short_names(results: Sequence[Result]) -> dict[str, str]:
    """Full name -> the name without its budget, if no other of these attacks has that one."""
    names = {record.full_name: record.name for result in results for record in result.attacks}
    return {full: name if list(names.values()).count(name) == 1 else full for full, name in names.items()}


def heading(name: str, results: Sequence[Result], layout: Layout) -> str:
    """Heading of the column of an attack of that full name."""
    return f"{name if layout == 'board' else short_names(results)[name]} %"


def record_named(result: Result, name: str) -> AttackRecord | None:
    """A result's attack of that full name."""
    return next((record for record in result.attacks if record.full_name == name), None)


def judged(result: Result) -> AttackRecord | None:
    """The attack that the verdict of gradient masking is about: the first that can be judged."""
    return next((record for record in result.attacks if record.can_be_judged), None) if result.masking else None


def masking_text(result: Result, record: AttackRecord) -> str:
    """Whether the model hides its gradient from attacks like this one; 'not checked' if nobody knows.

    A '?' says that another draw of images might turn it.
    """
    if result.masking is None or not record.can_be_judged:
        return UNCHECKED
    return f"{'found' if result.masking.found else 'not found'}{'' if result.masking.sure else '?'}"


def judged_names(results: Sequence[Result]) -> list[str]:
    """Full names of the attacks that any verdict is about; the first attack, if none was judged."""
    found = dict.fromkeys(record.full_name for result in results if (record := judged(result)))
    return list(found) or attack_names(results)[:1]


def attack_table(results: Sequence[Result]) -> Table | None:
    """A row per attack, a column per model: accuracy at the last step. None if the attacks have columns in the table of steps."""
    names = short_names(results)
    if len(names) <= INLINE:
        return None
    rows = [(Cell(label), *(cell_of(name, "steps")(result, -1) for result in results)) for name, label in names.items()]
    for name in judged_names(results)[:1]:
        verdicts = [masking_text(result, record) if (record := record_named(result, name)) else "" for result in results]
        if set(verdicts) - {"", UNCHECKED}:
            rows.append((Cell(f"masking of {names[name]}"), *map(Cell, verdicts)))
    return Table("", ("attack %", *(result.model.name for result in results)), tuple(rows), frozenset({"attack %"}))


def cell_of(name: str, layout: Layout) -> Callable[[Result, int], Cell]:
    def cell(result: Result, step: int) -> Cell:
        record = record_named(result, name)
        if record is None:
            return Cell("")
        found, known = percent_cell(record.by_step[step]), convergence_of(result, record)
        at_most = known is not None and not known.converged
        text = found.text if layout == "board" else with_interval(record.by_step[step], 0)
        return Cell(f"<={text}" if at_most else text, found.value, found.low, found.high, at_most=at_most)

    return cell


def _row(entry: Entry, record: AttackRecord) -> tuple[Cell, ...]:
    budget, verdict = budget_text(record.norm, record.eps), masking_text(entry.result, record)
    settled = converged_text(entry.result, record)
    told = attack_text(record, at_least=entry.result.at_least)
    ours, clean = percent_cell(record.top1), percent_cell(record.clean.top1)
    return Cell(entry.name), Cell(record.name), Cell(budget), ours, clean, Cell(settled), Cell(verdict), Cell(told)


class _Kind(NamedTuple):
    """What attacks must share to be points of one curve."""

    name: str
    norm: str
    space: str
    target: str
    path: str
    other: float
    """Their eps on a curve by steps, their steps on a curve by eps."""


def _kind(record: AttackRecord, axis: str) -> _Kind:
    other = record.steps if axis == "eps" else record.eps
    return _Kind(record.name, record.norm, record.space, record.target, record.path, other)


def curves(entries: Sequence[Entry]) -> Iterator[Figure]:
    """Accuracy by eps, and by steps, of models that the same attack attacked with several."""
    for axis in ("eps", "steps"):
        for kind in dict.fromkeys(_kind(record, axis) for entry in entries for record in entry.result.attacks):
            found: dict[tuple[str, ...], dict[float, tuple[AttackRecord, Entry]]] = {}
            for entry in entries:
                for record in entry.result.attacks:
                    if _kind(record, axis) == kind:
                        found.setdefault(_identity(entry), {})[getattr(record, axis)] = (record, entry)
            several = {model: points for model, points in found.items() if len(points) > 1}
            lines = tuple(_curve(k, model, points) for k, (model, points) in enumerate(several.items()))
            if lines:
                by_eps = axis == "eps"
                rest = counted(int(kind.other), "step") if by_eps else f"eps {eps_text(kind.other)} in {kind.space}"
                x = Axis(f"eps in {kind.space}, {kind.norm}" if by_eps else "steps of the attack", low=0)
                note = f"Bars are 95 % intervals; {axis} 0 is the same images without the attack."
                title = f"Accuracy under {kind.name} by {axis}, {rest}"
                yield Figure("Attacks", title, lines, x, Axis(ACCURACY_AXIS, low=0), note)


def _identity(entry: Entry) -> tuple[str, ...]:
    """Name and data of a model, and what tells it from others of that name."""
    result = entry.result
    used = result.model.checkpoint
    return result.display_name, entry.data, used.sha256 if used else "", json.dumps(result.model.config, sort_keys=True)


def _curve(series: int, model: tuple[str, ...], attacks: dict[float, tuple[AttackRecord, Entry]]) -> Line:
    """The attacks by their place on the axis, from the unattacked images at 0 on."""
    ordered = sorted(attacks.items())
    clean = ordered[0][1][0].clean.top1
    points = [Point(0, 100 * clean.value, 100 * clean.low, 100 * clean.high, f"{model[0]}, clean: {with_interval(clean)} %")]
    for place, (record, entry) in ordered:
        top1, budget = record.top1, f"eps {eps_text(record.eps)}, {counted(record.steps, 'step')}"
        tip = f"{model[0]}, {budget}: {with_interval(top1)} %, masking {masking_text(entry.result, record)}"
        points.append(Point(place, 100 * top1.value, 100 * top1.low, 100 * top1.high, tip))
    verdicts = ", ".join(dict.fromkeys(masking_text(entry.result, record) for _, (record, entry) in ordered))
    return Line(f"{model[0]}, {model[1]} (masking: {verdicts})", series, tuple(points))


def verdict_mark(result: Result, record: AttackRecord) -> str:
    """What stands behind a model's name in a plot of attacked accuracy."""
    return f" (masking: {masking_text(result, record)})"


def threat_table(result: Result) -> Table:
    """A row per attack of one result, with its threat model."""
    headings = ("attack", "top-1 %", "95 % interval", "converged", "masking", "threat model")
    rows = []
    for record in result.attacks:
        text = attack_text(record, at_least=result.at_least)
        verdicts = (converged_text(result, record), masking_text(result, record))
        cells = (record.name, percent(record.top1), interval(record.top1), *verdicts, text)
        rows.append(tuple(map(Cell, cells)))
    return Table("", headings, tuple(rows), frozenset(headings))


def every_attack(entries: Sequence[Entry]) -> Table:
    """A row per model and attack."""
    rows = tuple(_row(entry, record) for entry in entries for record in entry.result.attacks)
    headings = ("model", "attack", "budget", "top-1 %", "unattacked %", "converged", "masking", "how")
    words = {"attack", "budget", "converged", "masking", "how"}
    caption = "Every attack: whether a stronger one would take more, and whether the model hides its gradient."
    return Table(caption, headings, rows, frozenset(words))
