"""Policies: the same weights under every policy that they can follow, at every step, each compared with the model's own choice.

This changes the policy of trained weights and trains nothing again: it shows how much they depend on where they look.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from glimpsezoo.core.protocol import LEARNED, GlimpseModel, Policy
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.evaluation.jobs import Job
from glimpsezoo.evaluation.measuring import Evaluation
from glimpsezoo.evaluation.plan import Planned, evaluation_of
from glimpsezoo.evaluation.rows import Rows
from glimpsezoo.measures.base import Bench, Done, Measure, Update
from glimpsezoo.measures.pairs import SIGNIFICANT, Pair, paired_rows
from glimpsezoo.measures.result import Result, policy_text
from glimpsezoo.measures.shown import Cell, Entry, Table, percent_cell
from glimpsezoo.measures.statistics import Rate, Scores, classification
from glimpsezoo.measures.text import macs_text, percent
from glimpsezoo.schema import Amount, Positive, Section
from glimpsezoo.settings import Settings
from glimpsezoo.specs import PolicySpec, load_string


class PolicyStep(Section):
    """Runs stopped at one step, as in `accuracy`."""

    step: Positive
    """Which step."""
    top1: Rate
    """Top-1 accuracy."""
    macs: Amount
    """Mean cost per image, with what the policy computes."""
    against_own: Pair | None = None
    """As that of the policy, at this step."""


class Followed(Section):
    """The model under one policy, on the images of the run."""

    policy: str
    """Its name."""
    upper_bound: bool
    """Whether it reads the labels."""
    steps: tuple[PolicyStep, ...]
    """Step by step."""
    against_own: Pair | None
    """Compared on the same images at their last steps with the policy that the model's settings choose; null for this one itself."""


class PoliciesSettings(Settings):
    """`--set policies.KEY`: which policies are measured."""

    names: tuple[str, ...] | None = None
    """Their names, beside the model's own choice; none for all that are registered."""


class PoliciesMeasure(Measure):
    """Every model that can follow policies, under each of them."""

    record = tuple[Followed, ...]
    empty = ()
    config = PoliciesSettings

    settings: PoliciesSettings
    """Settings of `--set policies.KEY`."""

    @property
    def policies(self) -> list[Policy]:
        """The model's own choice, then the others. Raises `GlimpseZooError` for an unknown name."""
        catalogue = self.asked.catalogue
        known = [spec.name for spec in catalogue.all(PolicySpec)]
        names = dict.fromkeys([LEARNED.name, *(known if self.settings.names is None else self.settings.names)])
        return [load_string(catalogue.find(PolicySpec, name).policy)() for name in names]

    def prepare(self, bench: Bench) -> str:
        self._policies = self.policies
        return "" if any(map(_may_follow, bench.models)) else "no model of the run can follow a policy"

    def plan(self, bench: Bench) -> Iterator[Planned]:
        for index, model in enumerate(bench.models):
            for policy in self._policies if _may_follow(model) else ():
                if policy.name == model.policy or (policy.name == LEARNED.name and not policy.asks(model)):
                    continue  # `Bench.clean` has it, or there is none
                try:
                    twin = model.following(policy)
                except GlimpseZooError as error:
                    bench.note(index, f"policies of {bench.names[index]}: {error}")
                    continue
                job = Job(twin, bench.names[index], bench.data)
                label, passes = f"policy {policy.name}", 1.0 + policy.tries
                yield evaluation_of(job, index=index, key=policy.name, label=label, seed=bench.seed, passes=passes)

    def section(self, bench: Bench, index: int, done: Done) -> tuple[Followed, ...]:
        found: dict[str, Rows] = {}
        clean = bench.clean_rows(index)
        if clean is not None and _may_follow(bench.models[index]):
            found[bench.models[index].policy] = clean
        for name, each in done.get(index, {}).items():
            if isinstance(each, Evaluation) and len(each.rows):
                found[str(name)] = each.rows
        own = bench.models[index].policy
        asked = {policy.name: policy for policy in (*self._policies, bench.models[index].follows)}  # what they are compared with, too
        return tuple(_followed(policy, found[name], own, found.get(own)) for name, policy in asked.items() if name in found)

    def lost(self, known: tuple[Followed, ...], update: Update) -> Iterator[str]:
        names = {policy.name for policy in self.policies}
        yield from (f"the policy {each.policy}" for each in known if each.policy not in names)

    @classmethod
    def below(cls, results: Sequence[Result]) -> list[Table]:
        return _tables([(result.model.name, result) for result in results])

    @classmethod
    def card_text(cls, result: Result) -> list[str | Table]:
        return ["### Policies", *_tables([(result.model.name, result)])] if result.policies else []

    @classmethod
    def tables(cls, entries: Sequence[Entry]) -> dict[str, list[Table]]:
        found = _tables([(entry.title, entry.result) for entry in entries])
        return {"Policies": found} if found else {}


def _may_follow(model: GlimpseModel[Any]) -> bool:
    """Whether a model chooses where it looks, and has a setting for it."""
    return model.steps > 1 and "policy" in type(model.config).model_fields


def _followed(policy: Policy, rows: Rows, reference: str, own: Rows | None) -> Followed:
    """reference: the name of the policy with the rows `own`."""
    macs = rows.macs_by_step.mean(0)
    estimates = classification(Scores(rows.hits, rows.top5, rows.nll, rows.confidence), rows.group)  # the intervals of `accuracy`
    other = None if policy.name == reference else own
    pairs = [None if other is None else paired_rows(policy.name, rows, reference, other, t) for t in range(len(macs))]
    steps = tuple(PolicyStep(step=t + 1, top1=found.top1, macs=float(macs[t]), against_own=pairs[t]) for t, found in enumerate(estimates))
    return Followed(policy=policy.name, upper_bound=policy.needs_labels, steps=steps, against_own=pairs[-1])


def _tables(found: Sequence[tuple[str, Result]]) -> list[Table]:
    """One table of all models: a row per policy, a column per step."""
    measured = [(name, result, each) for name, result in found for each in result.policies]
    if not measured:
        return []
    most = max(len(each.steps) for _, _, each in measured)
    rows, before = [], ""
    for name, result, each in measured:
        steps = [replace(percent_cell(step.top1), text=f"{percent(step.top1)}{_mark(step.against_own)}") for step in each.steps]
        macs = each.steps[-1].macs
        rows.append(
            (
                Cell("" if name == before else name),
                Cell(policy_text(each.policy, upper_bound=each.upper_bound)),
                *steps,
                *[Cell("")] * (most - len(steps)),
                Cell(macs_text(macs, at_least=result.at_least), macs),
                *_compared(each.against_own),
            )
        )
        before = name
    own = " or ".join(dict.fromkeys(each.against_own.b for _, _, each in measured if each.against_own)) or LEARNED.name
    headings = ("model", "policy", *(f"step {step}" for step in range(1, most + 1)), "MACs", f"against {own}", "p")
    caption = (
        f"Top-1 % of the same weights under other policies. Against {own}: the difference in points at the last step on the same images, "
        "with its 95 % interval; p is one-sided, for the claim that the policy is worse. * is p < .05 at that step."
    )
    return [Table(caption, headings, tuple(rows), frozenset({"model", "policy"}))]


def _mark(pair: Pair | None) -> str:
    return "*" if pair is not None and pair.p < SIGNIFICANT else ""


def _compared(pair: Pair | None) -> tuple[Cell, Cell]:
    if pair is None:
        return Cell(""), Cell("")
    difference, low, high = (100 * value for value in (pair.difference, pair.low, pair.high))
    p = f"{pair.p:.3f}" if pair.p >= 0.001 else "< 0.001"
    return Cell(f"{difference:+.1f} ({low:+.1f} to {high:+.1f})", difference, low, high), Cell(p, pair.p)
