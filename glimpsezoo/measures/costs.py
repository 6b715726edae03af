"""What a result says of costs, and the cost of a model without data."""

from collections.abc import Sequence
from typing import Any

from glimpsezoo.core.protocol import GlimpseModel
from glimpsezoo.data.noise_images import NoiseImages
from glimpsezoo.evaluation.jobs import Job
from glimpsezoo.evaluation.measuring import Evaluation, EvaluationConfig, run_job
from glimpsezoo.evaluation.rows import Measured
from glimpsezoo.measures.result import Result
from glimpsezoo.measures.text import macs_text


def cost_text(result: Result, macs: float) -> str:
    """A number of MACs of a result, with '>=' before it if operations without a formula ran."""
    return macs_text(macs, at_least=result.at_least)


def step_costs(result: Result) -> list[float]:
    """MACs per image of runs stopped at each step; none if they were not counted."""
    section = result.flops or result.accuracy
    return [step.macs for step in section.steps] if section else []


def mean_macs(result: Result) -> float | None:
    """MACs per image, on average; None if they were not counted."""
    if result.flops:
        return result.flops.macs.mean
    return result.accuracy.steps[-1].macs if result.accuracy else None


def uncounted(result: Result) -> tuple[str, ...]:
    """Operations that ran and count as nothing."""
    return result.flops.uncounted if result.flops else ()


def missing_operations(measured: Sequence[Measured]) -> tuple[str, ...]:
    """Operations without a formula that may hold products, in any of these units: with any, their MACs are lower bounds."""
    return tuple(sorted({name for unit in measured for name in unit.missing}))


def evaluated_on_noise(model: GlimpseModel[Any], *, images: int = 8, config: EvaluationConfig | None = None) -> Evaluation:
    """A model on a few images of noise of the size that its task declares.

    If the cost of a model depends on what it sees, this is its cost on noise.
    """
    found = run_job(Job(model, type(model).__name__, NoiseImages(model.task, images)), config)
    if found.failed and found.failed[0].error:
        raise found.failed[0].error
    return found
