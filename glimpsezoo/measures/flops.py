"""The cost of what ran: MACs per image, by step and by phase, beside what the model's paper would print."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from glimpsezoo.core.protocol import GlimpseModel
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.escaping import code, markdown
from glimpsezoo.evaluation.measuring import EvaluationConfig
from glimpsezoo.evaluation.rows import Measured, Rows
from glimpsezoo.measures.base import Bench, Done, Measure
from glimpsezoo.measures.costs import cost_text, evaluated_on_noise, mean_macs, missing_operations, step_costs
from glimpsezoo.measures.result import Result
from glimpsezoo.measures.shown import Cell, Column, Layout, Table
from glimpsezoo.schema import Amount, Positive, Section


class Spread(Section):
    """MACs per image, over the images."""

    mean: Amount
    """Mean over all images."""
    p50: Amount
    """Median."""
    p95: Amount
    """95th percentile."""
    max: Amount
    """The most expensive image."""


class PaperCost(Section):
    """What a paper would print."""

    convention: str
    """Name of the paper's convention."""
    value: Amount
    """MACs per image."""


class Phases(Section):
    """Mean MACs per image in each phase of the protocol."""

    start: Amount
    """In start."""
    sense: Amount
    """In sense."""
    fuse: Amount
    """In fuse."""
    locate: Amount
    """In locate."""
    classify: Amount
    """In classify."""


class FlopsStep(Section):
    """Runs stopped at one step."""

    step: Positive
    """Which step."""
    macs: Amount
    """Mean per image."""


class Flops(Section):
    """The cost of what ran, per image."""

    n: Positive
    """How many images were counted."""
    images: Literal["data", "noise"]
    """Images of the data set, or noise of its declared size."""
    macs: Spread
    """MACs of the whole run."""
    flops_mean: Amount
    """2 x macs.mean."""
    paper_macs: PaperCost | None
    """What the model's paper would print of it."""
    phases: Phases
    """By phase."""
    steps: tuple[FlopsStep, ...]
    """Step by step."""
    uncounted: tuple[str, ...]
    """Arithmetic operations that ran and count as nothing."""
    missing: tuple[str, ...] = ()
    """Those of them that may hold products of matrices or with weights, and have no formula; with any of them, every number of MACs is a
    lower bound.
    """


def flops_section(rows: Rows, measured: Sequence[Measured], *, images: Literal["data", "noise"] = "data") -> Flops:
    """The cost of what ran, per image: MACs, and FLOPs as two times their mean. Raises `GlimpseZooError` if there is no row.

    measured: of the units that the rows come from. The paper's cost is the mean over the images' last steps.
    """
    if not len(rows):
        raise GlimpseZooError("expected at least one measured image, got none: see the errors of the result")
    p50, p95 = np.quantile(rows.macs, [0.5, 0.95])
    mean, printed = float(rows.macs.mean()), measured[0].paper_macs
    paper = None
    if printed is not None:
        value = float(np.array(printed.by_step)[rows.exit_step - 1].mean())
        paper = PaperCost(convention=printed.convention, value=value)
    return Flops(
        n=len(rows),
        images=images,
        macs=Spread(mean=mean, p50=float(p50), p95=float(p95), max=float(rows.macs.max())),
        flops_mean=2 * mean,
        paper_macs=paper,
        phases=Phases(**dict(zip(Phases.model_fields, rows.macs_by_phase.mean(0).tolist(), strict=True))),
        steps=tuple(FlopsStep(step=t + 1, macs=macs) for t, macs in enumerate(rows.macs_by_step.mean(0).tolist())),
        uncounted=tuple(sorted({name for unit in measured for name in unit.uncounted})),
        missing=missing_operations(measured),
    )


def flops_of(model: GlimpseModel[Any], *, images: int = 8, config: EvaluationConfig | None = None) -> Flops:
    """The cost of a model without a data set: see `evaluated_on_noise`; the section says that it was noise."""
    found = evaluated_on_noise(model, images=images, config=config)
    return flops_section(found.rows, found.measured, images="noise")


class FlopsMeasure(Measure):
    """Cost on the clean images, which every run measures anyway."""

    record = Flops
    plain = True

    def section(self, bench: Bench, index: int, done: Done) -> Flops | None:
        rows = bench.clean_rows(index)
        return flops_section(rows, bench.clean[index].measured) if rows is not None else None

    @property
    def without_data(self) -> bool:
        return True

    def section_without_data(self, model: GlimpseModel[Any], config: EvaluationConfig) -> Flops:
        return flops_of(model, config=config)

    @classmethod
    def columns(cls, results: Sequence[Result], layout: Layout) -> list[Column]:
        if layout == "steps":
            return [Column("MACs", _macs_at, higher=False, last=True)]
        paper = Column("paper's MACs", _paper_macs, higher=False, minor=True)
        if layout == "details":
            return [Column("MACs/image", _macs_at, higher=False), paper]
        unknown = Column("MACs without a formula", lambda result, _: Cell(", ".join(result.missing)), words=True)
        return [Column("MACs", _mean, higher=False), unknown, paper]

    @classmethod
    def footnotes(cls, results: Sequence[Result], layout: Layout) -> list[str]:
        noise = [result.model.name for result in results if result.flops and result.flops.images == "noise"]
        lines = [f"{', '.join(noise)}: counted on images of noise, without the data."] if noise else []
        costs = [(result.model.name, _paper_macs(result, -1).text) for result in results] if layout == "steps" else []
        papers = ", ".join(f"{cost} MACs for {name}" for name, cost in costs if cost)
        return [*lines, *([f"The papers' conventions count {papers}."] if papers else [])]

    @classmethod
    def card_text(cls, result: Result) -> list[str | Table]:
        found: Flops = result.flops
        lines: list[str | Table] = []
        if not result.accuracy:
            lines.append(f"It takes {cost_text(result, found.macs.mean)} MACs per image.")
        if found.paper_macs:
            paper = found.paper_macs
            lines.append(f"The paper's convention ({code(paper.convention)}) counts {cost_text(result, paper.value)} MACs for all steps.")
        return [*lines, markdown(f"Ran and not counted as MACs: {', '.join(found.uncounted) or 'nothing'}.")]


def _macs_at(result: Result, step: int) -> Cell:
    costs = step_costs(result)
    return Cell(cost_text(result, costs[step]), costs[step]) if costs else Cell("")


def _mean(result: Result, _: int) -> Cell:
    macs = mean_macs(result)
    return Cell("") if macs is None else Cell(cost_text(result, macs), macs)


def _paper_macs(result: Result, step: int) -> Cell:
    """Shown in the last step's row, because it is the cost of the whole run."""
    found = result.flops.paper_macs if result.flops else None
    if found is None or step not in {-1, len(result.flops.steps) - 1}:
        return Cell("")
    return Cell(cost_text(result, found.value), found.value)
