"""Accuracy under attacks, each with its threat model, beside the same images without the attack."""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from glimpsezoo.conditions.attacks.base import Attack
from glimpsezoo.conditions.attacks.settings import AttackSettings
from glimpsezoo.conditions.base import Remembered
from glimpsezoo.core.exits import ExitRule
from glimpsezoo.core.protocol import GlimpseModel
from glimpsezoo.data.limited import limited
from glimpsezoo.errors import GlimpseZooError, did_you_mean
from glimpsezoo.evaluation.jobs import identity_of
from glimpsezoo.evaluation.plan import Planned, PlannedFinding, evaluation_of
from glimpsezoo.evaluation.rows import Rows, common_ids
from glimpsezoo.measures.base import Asked, Bench, Catalogue, Done, Measure, Sets, Update
from glimpsezoo.measures.calibration import exit_settings
from glimpsezoo.measures.looks import Looks, looks_code, looks_under
from glimpsezoo.measures.result import Result, by_text
from glimpsezoo.measures.robustness import budget_figures, share_estimate
from glimpsezoo.measures.shown import Column, Entry, Figure, Layout, Table
from glimpsezoo.measures.statistics import proportion
from glimpsezoo.measures.threats import (
    INLINE,
    AttackRecord,
    Convergence,
    ExitRuleUsed,
    Unattacked,
    attack_names,
    attack_table,
    attack_text,
    cell_of,
    curves,
    every_attack,
    heading,
    is_converged,
    judged_names,
    record_named,
    short_names,
    threat_table,
    unconverged,
    verdict_mark,
)
from glimpsezoo.specs import AttackSpec, load_string

STANDARD = ("worst-case",)
STRONGER = ("apgd-ce", "apgd-dlr", "square", "slowdown")
STRONGER_NAME = "stronger-attacks"  # in --measure
STRONGER_WORST_CASE = {"images": "500"}  # with them, unless settings say otherwise
_EMPTY: Mapping[str, str] = {}
EVALUATIONS = 5  # noises that a stochastic model is evaluated with under attack, unless a setting says otherwise


@dataclass(frozen=True)
class AttackWanted:
    """An attack with its settings."""

    spec: AttackSpec
    settings: AttackSettings
    named: bool
    """Whether the user asked for it by name. If so, it must suit a model of the run; otherwise it need not suit any."""

    @property
    def at_exit(self) -> bool:
        """Whether its target is the prediction at the exit, so that it needs an exit rule."""
        return self.settings.target == "exit"


def parse_attack(text: str, sets: Sets, catalogue: Catalogue) -> AttackWanted:
    """`pgd`, `pgd:4/255` for another eps, or `pgd:4/255:100` for a number of steps as well. Raises `GlimpseZooError`."""
    name, *budget = text.split(":")
    if len(budget) > 2:
        raise GlimpseZooError(f"{name} expects an eps and a number of steps, got {text!r}: write {name}:4/255:100, say")
    return _wanted(name, dict(zip(("eps", "steps"), budget, strict=False)), sets, catalogue, named=True)


def _wanted(
    name: str, budget: Mapping[str, str], sets: Sets, catalogue: Catalogue, *, named: bool, preset: Mapping[str, str] = _EMPTY
) -> AttackWanted:
    """Settings in rising precedence: preset, `--set attacks.KEY` for attacks that know it, `--set NAME.KEY`, the budget in the text."""
    spec = catalogue.find(AttackSpec, name)
    schema: type[AttackSettings] = load_string(spec.config)
    shared = {key: value for key, value in sets.of("attacks").items() if key in schema.model_fields}
    return AttackWanted(spec, schema.parse({**preset, **shared, **sets.of(name), **budget}, owner=name), named)


class AttackedMeasure(Measure):
    """Every model under the attacks that suit it, and under its exit rule without the attack, to compare."""

    record = tuple[AttackRecord, ...]
    empty = ()
    few = True

    wanted: tuple[AttackWanted, ...]
    attacks: dict[int, list[Attack]]
    """By model: the attacks that suit it. Resolved with the plan."""

    @classmethod
    def takes(cls, name: str, text: str, catalogue: Catalogue) -> bool:
        return text in {name, STRONGER_NAME} or text.partition(":")[0] in _names(catalogue)

    @classmethod
    def scopes(cls, name: str, catalogue: Catalogue) -> list[str]:
        return [name, *_names(catalogue)]

    @classmethod
    def of(cls, asked: Asked) -> "AttackedMeasure | None":
        wanted: list[AttackWanted] = []
        for text in asked.texts:
            if text in {asked.name, STRONGER_NAME}:
                names = STANDARD if text == asked.name else STRONGER
                preset = STRONGER_WORST_CASE if text == asked.name and STRONGER_NAME in asked.texts else {}
                wanted += [_wanted(each, {}, asked.sets, asked.catalogue, named=False, preset=preset) for each in names]
            else:
                wanted.append(parse_attack(text, asked.sets, asked.catalogue))
        wanted = _each_once(wanted)
        _check_used(asked, wanted)
        found = cls(asked, cls.config()) if wanted else None
        if found is not None:
            found.wanted, found.attacks = tuple(wanted), {}
        return found

    @property
    def texts(self) -> list[str]:
        names = [each.spec.name for each in self.wanted]
        return [name if names.count(name) == 1 else f"{name} ({names.count(name)} budgets)" for name in dict.fromkeys(names)]

    @property
    def uses_exits(self) -> bool:
        return any(each.at_exit for each in self.wanted)

    @property
    def insists_on_exits(self) -> str:
        named = [each.spec.name for each in self.wanted if each.named and each.at_exit]
        settings, _ = exit_settings(self.asked.sets, self.asked.catalogue)
        return named[0] if named and settings.threshold is None else ""

    def plan(self, bench: Bench) -> Iterator[Planned]:
        self.attacks = {index: [] for index in range(len(bench.models))}
        for wanted in self.wanted:
            self._build(bench, wanted)
        for index in self.attacks:
            yield from self._plan_of(bench, index)

    def _build(self, bench: Bench, wanted: AttackWanted) -> None:
        """Build an attack for the models that it suits, and note the others. Raises `GlimpseZooError` if one that is named suits none."""
        misfits: dict[int, GlimpseZooError] = {}
        for index, model in enumerate(bench.models):
            try:
                rule = bench.exit_rule(index, self.asked.sets) if wanted.at_exit else None
                self.attacks[index].append(built_attack(wanted, bench.names[index], model, rule))
            except GlimpseZooError as error:
                misfits[index] = error
        if wanted.named and len(misfits) == len(bench.models):
            raise misfits[0]
        for index, error in misfits.items():
            bench.note(index, f"{error.args[0].partition(': leave ')[0]}: not measured")

    def _plan_of(self, bench: Bench, index: int) -> Iterator[Planned]:
        """Each round of an attack is evaluated as often as its settings say."""
        rules: dict[float, ExitRule] = {}
        for place, attack in enumerate(self.attacks[index]):
            rule = attack.exit_rule if attack.attacks_the_exit else None
            rounds = attack.rounds()
            if attack.aims_at_looks:
                yield self._looks_of(bench, index, place, attack, rounds[-1])
            for number, condition in enumerate(rounds):
                for run in range(attack.evaluations):
                    last = run == attack.evaluations - 1 and number == len(rounds) - 1
                    yield evaluation_of(
                        bench.job(index, limited(bench.few, attack.settings.images), condition, rule),
                        index=index,
                        key=(place, number, run),
                        label=attack.name,
                        passes=1 + (attack.passes(bench.models[index], number) if run == 0 and not attack.aims_at_looks else 0),
                        seed=bench.seed + run,
                        together=(index, place),
                        last_of=tuple(rounds) if last else (),
                        unless=partial(_has_converged, attack, place, number),
                    )
            if rule is not None:
                rules[rule.parameters["threshold"]] = rule
        for threshold, rule in rules.items():
            yield evaluation_of(
                bench.job(index, bench.few, rule=rule), index=index, key=_unattacked(threshold), label="exits", seed=bench.seed
            )

    def _looks_of(self, bench: Bench, index: int, place: int, attack: Attack, images: Remembered) -> Planned:
        """Where the model looks under an attack. It comes before the evaluation, which has the last use of the attack's images."""
        model, data = bench.models[index], limited(bench.few, attack.settings.images)
        return PlannedFinding(
            index=index,
            key=("looks", place),
            label=attack.name,
            passes=2 + attack.passes(model),
            images=len(data),
            together=(index, place),
            identity={**identity_of(bench.job(index, data, attack), bench.seed), "looks": looks_code()},
            kind=Looks,
            find=partial(looks_under, bench, model, data, images),
        )

    def section(self, bench: Bench, index: int, done: Done) -> tuple[AttackRecord, ...]:
        mine, records = done.get(index, {}), []
        for place, attack in enumerate(self.attacks.get(index, ())):
            rule = attack.exit_rule if attack.attacks_the_exit else None
            rounds = [_runs(mine, place, number, attack.evaluations) for number in _rounds_of(mine, place)]
            clean = mine[_unattacked(rule.parameters["threshold"])].rows if rule else bench.clean_rows(index)
            if not clean or not all(map(len, rounds[-1])):
                continue  # the errors say why
            ids = common_ids([clean, *rounds[-1]])
            if len(ids):  # or else other units of each failed: the errors say which
                record = attack_record(attack, [rows.at(ids) for rows in rounds[-1]], clean.at(ids), bench.models[index])
                if len(rounds) > 1:
                    own = {**record.settings, "rounds": len(rounds)}
                    record = record.model_copy(update={"settings": own, "attack_converged": convergence(rounds, any_step=attack.any_step)})
                records.append(record.model_copy(update={"looks": mine.get(("looks", place))}))
        return tuple(records)

    def lost(self, known: tuple[AttackRecord, ...], update: Update) -> Iterator[str]:
        planned = [_unchecked(each, update.model, None) for each in self.wanted]
        for record in known:
            if not any(record.is_kept_by(each.described(update.model), each.settings.images, len(each.rounds())) for each in planned):
                yield f"{record.name} ({attack_text(record)})"

    @classmethod
    def columns(cls, results: Sequence[Result], layout: Layout) -> list[Column]:
        """One for each attack; many attacks have a table of their own (`below`), and here only the one that was judged."""
        names = attack_names(results)
        if layout != "board" and len(names) > INLINE:
            names = judged_names(results)[:1]
        return [Column(heading(name, results, layout), cell_of(name, layout)) for name in names]

    @classmethod
    def footnotes(cls, results: Sequence[Result], layout: Layout) -> list[str]:
        """What each attack was; by model, if it was not the same for all."""
        lines, names = [], short_names(results)
        for name in names if layout != "board" else ():
            found = [(record_named(result, name), result.at_least) for result in results]
            texts = [attack_text(record, at_least=at_least) if record else "" for record, at_least in found]
            lines += [f"{names[name]}{models}: {text}." for text, models in by_text(results, texts).items()]
            lines += unconverged(name, results)
        return lines

    @classmethod
    def below(cls, results: Sequence[Result]) -> list[Table]:
        found = attack_table(results)
        return [] if found is None else [found]

    @classmethod
    def card_text(cls, result: Result) -> list[str | Table]:
        return ["### Under attack", threat_table(result)] if result.attacks else []

    @classmethod
    def tables(cls, entries: Sequence[Entry]) -> dict[str, list[Table]]:
        found = every_attack(entries)
        return {"Attacks": [found]} if found.rows else {}

    @classmethod
    def figures(cls, entries: Sequence[Entry]) -> Iterator[Figure]:
        for name in attack_names([entry.result for entry in entries]):
            yield from budget_figures(
                f"under {name}",
                entries,
                lambda result, name=name: record_named(result, name),
                verdict_mark,
            )
        yield from curves(entries)


def attack_record(attack: Attack, evaluations: Sequence[Rows], clean: Rows, model: GlimpseModel[Any]) -> AttackRecord:
    """Accuracy under an attack, averaged over the `evaluations` of each image.

    evaluations: rows of the attacked images, one entry per run with its own noise. clean: of the same images, budget and exit rule
    without the attack. Both have images, and the same.
    """
    shares = np.mean([_right(rows, any_step=attack.any_step) for rows in evaluations], axis=0)  # [n, T]
    by_step = tuple(share_estimate(shares[:, step], clean.group) for step in range(shares.shape[1]))
    said: dict[str, Any] = {**attack.described(model), "evaluations": len(evaluations)}
    rule = attack.exit_rule if attack.attacks_the_exit else None
    own = {key: value for key, value in attack.settings.model_dump(mode="json").items() if key not in {*said, "images"}}
    return AttackRecord(
        **said,
        settings=own,
        exit_rule=ExitRuleUsed(rule=rule.name, threshold=rule.parameters["threshold"]) if rule else None,
        n=len(clean),
        top1=by_step[-1],
        by_step=by_step,
        macs_mean=float(np.mean([rows.macs.mean() for rows in evaluations])),
        steps_mean=float(np.mean([rows.exit_step.mean() for rows in evaluations])),
        clean=Unattacked(
            top1=proportion(_right(clean, any_step=attack.any_step)[:, -1], clean.group),
            macs_mean=float(clean.macs.mean()),
            steps_mean=float(clean.exit_step.mean()),
        ),
    )


def convergence(rounds: Sequence[Sequence[Rows]], *, any_step: bool = False) -> Convergence | None:
    """How far the last round of an attack lowered the accuracy; None for fewer than two. rounds: rows of every evaluation per round.
    any_step: as in `_right`.
    """
    if len(rounds) < 2 or not all(len(rows) for runs in rounds[-2:] for rows in runs):
        return None
    ids = common_ids([*rounds[-2], *rounds[-1]])
    if not len(ids):
        return None
    before, after = (np.mean([_right(rows.at(ids), any_step=any_step)[:, -1] for rows in runs], axis=0) for runs in rounds[-2:])
    gain = share_estimate(before - after, rounds[-1][0].at(ids).group)
    return Convergence(converged=is_converged(gain.value, gain.high), gain=gain)


def _has_converged(attack: Attack, place: int, number: int, done: Mapping[Hashable, Any]) -> bool:
    """Whether an attack has converged before its round `number`, counted from 0."""
    if number < 2:
        return False
    if (place, number - 1, 0) not in done:
        return True  # it had converged before that
    rounds = [_runs(done, place, each, attack.evaluations) for each in (number - 2, number - 1)]
    found = convergence(rounds, any_step=attack.any_step)
    return found is not None and found.converged


def _rounds_of(done: Mapping[Hashable, Any], place: int) -> list[int]:
    """The rounds of an attack that were measured."""
    return sorted({key[1] for key in done if isinstance(key, tuple) and len(key) == 3 and key[0] == place})


def _runs(done: Mapping[Hashable, Any], place: int, number: int, evaluations: int) -> list[Rows]:
    """The rows of each evaluation after a round of an attack."""
    return [done[place, number, run].rows for run in range(evaluations)]


def _right(rows: Rows, *, any_step: bool) -> Bool[ndarray, "n T"]:
    """Whether the prediction of each step is right; with `any_step`, those of all steps up to it."""
    return np.logical_and.accumulate(rows.hits, axis=1) if any_step else rows.hits


def _unattacked(threshold: float) -> tuple[str, float]:
    return "unattacked", threshold


def _names(catalogue: Catalogue) -> list[str]:
    return [spec.name for spec in catalogue.all(AttackSpec)]


def _each_once(attacks: Iterable[AttackWanted]) -> list[AttackWanted]:
    """Those that differ; one that was named counts as named. A named attack replaces a preset's of that name."""
    attacks = list(attacks)
    own = {wanted.spec.name for wanted in attacks if wanted.named}
    found = {(w.spec.name, w.settings): w for w in attacks if w.named or w.spec.name not in own}
    return list(found.values())


def _check_used(asked: Asked, attacks: Sequence[AttackWanted]) -> None:
    """A setting that no attack of the run takes is a mistake."""
    names = list(dict.fromkeys(wanted.spec.name for wanted in attacks))
    known = {key for wanted in attacks for key in type(wanted.settings).model_fields}
    for key in asked.sets.of("attacks"):
        if key not in known:
            who = ", ".join(names) or "an attack"
            raise GlimpseZooError(f"--set attacks.{key} expects a setting of {who}: {did_you_mean(key, known)}")
    for name in _names(asked.catalogue):
        if asked.sets.of(name) and name not in names:
            key = next(iter(asked.sets.of(name)))
            raise GlimpseZooError(f"--set {name}.{key} expects {name} to be measured: name it in --measure")


def built_attack(wanted: AttackWanted, name: str, model: GlimpseModel[Any], rule: ExitRule | None) -> Attack:
    """The attack for a model. Raises `GlimpseZooError` if it does not suit it."""
    attack = _unchecked(wanted, model, rule)
    try:
        attack.check(model)
    except GlimpseZooError as error:
        raise GlimpseZooError(f"{name}: {error}") from None
    return attack


def _unchecked(wanted: AttackWanted, model: GlimpseModel[Any], rule: ExitRule | None) -> Attack:
    """The attack for a model, whether it suits it or not. A stochastic model has `EVALUATIONS`, unless the settings say otherwise."""
    evaluations = wanted.settings.evaluations or (EVALUATIONS if model.stochastic else 1)
    return load_string(wanted.spec.attack)(wanted.settings.model_copy(update={"evaluations": evaluations}), rule)
