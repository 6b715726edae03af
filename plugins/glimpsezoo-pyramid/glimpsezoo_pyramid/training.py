"""The learning rules of the pyramid paper: equations 1 to 6, with 8a and 11 to 15.

The paper maximises a rule; here its negative is minimised, term by term, for a batch of N images with M samples each:
- cross_entropy: -log p(y | l, x), the first term of eq. 1;
- reinforce: -lambda_f (log p(y | l, x) - b) log p(l | x); its gradient is the second term of eq. 1 (its value has no meaning);
- cost: -R_t (eqs. 2 and 14), and diversity: -R_r (eqs. 3 and 15).
Each is a mean over the N x M samples. Rule 5 is rule 4 with the levels that the training phase allows; rule 6 is the sum of rule 5 over
the numbers of levels, weighted by lambda_z. The first z levels of a run are a run of z levels, so one rollout serves all of them.

The gradient stops between feature extraction and location (appendix A.5.2): the last three terms train only the location module, and the
first term does not train it. So their weights only matter to how that module is optimised: with Adam, multiplying all three by s is the
same as dividing epsilon by s. The paper's lambda_f = 1e-6 with epsilon 1e-8 is lambda_f = 1 with epsilon .01: smaller gradients are
damped, larger ones are normalised. Only the ratios of `lambda_t` and `lambda_r` to lambda_f and to epsilon matter.

What the paper leaves open: here b starts at the log likelihood of a guess, and c_r is the rate that spreads c_t evenly.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from glimpsezoo import Decision, GlimpseZooError, Record, State, Trace, TrainingPhase, monte_carlo, reinforce, rollout
from glimpsezoo_pyramid.config import LearningRule
from glimpsezoo_pyramid.model import CellDecision, Pyramid, PyramidState

MOMENTUM = 0.9  # of the moving baseline, eq. 12
Terms = dict[str, Float[Tensor, ""]]
Choices = list[tuple[Int[Tensor, "_"], CellDecision]]  # one entry per level: the rows of the batch that chose, and their decision


def training_step(model: Pyramid, images: Float[Tensor, "B C H W"], labels: Int[Tensor, "B"], phase: TrainingPhase) -> Terms:
    """Learning rule 4, 5 or 6, depending on the options of the training phase (`LearningRule`).

    With a trivial policy or a single level, only the cross-entropy is left. Raises `GlimpseZooError` for invalid options.
    """
    rule = LearningRule.parse(phase.options, owner=f"training phase {phase.name!r}")
    levels = model.steps if rule.levels is None else rule.levels
    weights = rule.weights(levels)
    if len(weights) != levels or levels > model.steps:
        raise GlimpseZooError(
            f"training phase {phase.name!r} expects a model of {levels} levels and as many level_weights, "
            f"got {model.steps} and {len(weights)}"
        )
    samples = rule.samples if levels > 1 else 1
    images, labels, noise = monte_carlo(images, labels, phase.noise, samples)  # N M of each
    record = Record(every_step=rule.level_weights is not None, states=levels > 1)
    trace = rollout(model, images, steps=levels, choose=_drawing(model), noise=noise, record=record)
    by_step = trace.logits_by_step() if record.every_step else None  # [N M, levels, classes]
    choices = choices_of(model, trace) if model.policy == "learned" else []
    total: Terms = {}
    for allowed, weight in enumerate(weights, start=1):
        if weight > 0:
            logits = trace.logits if by_step is None else by_step[:, allowed - 1]
            log_likelihood = -F.cross_entropy(logits.float(), labels, reduction="none")  # [N M]
            terms = {"cross_entropy": -log_likelihood.mean()}
            if choices and allowed > 1:
                guess = -math.log(logits.shape[1])
                baseline = moving_baseline(phase, f"baseline of {allowed} levels", phase.mean(log_likelihood.detach()), guess)
                advantage = log_likelihood.detach() - (baseline if rule.baseline else 0.0)
                terms |= location_terms(rule, choices[: allowed - 1], advantage, rule.targets(allowed, levels), phase)
            for name, value in terms.items():
                total[name] = total.get(name, 0) + weight * value
    return total


def choices_of(model: Pyramid, trace: Trace) -> Choices:
    """Every choice of a trace with recorded states, made again with a gradient in the location module and in nothing before it.

    A draw is a function of the state and its noise, so the cells are the same. Images that chose no cell left the batch; here this choice
    counts as any other.
    """
    choices: Choices = []
    for look in trace.looks[: trace.steps - 1]:
        assert isinstance(look.state, PyramidState)
        frontier = replace(look.state.frontier, map=look.state.frontier.map.detach())
        state = replace(look.state, frontier=frontier)
        choices.append((look.rows, model.draw(state, model.cell_logits(state))))
    return choices


def location_terms(
    rule: LearningRule, choices: Choices, advantage: Float[Tensor, "B"], targets: tuple[float, float], phase: TrainingPhase
) -> Terms:
    """The three terms that train the location module. advantage: log p(y | l, x) - b per image [B]. targets: (c_t, c_r)."""
    c_t, c_r = targets
    log_prob = expected = torch.zeros_like(advantage)  # log p(l | x), eq. 8a; p_t, eq. 14: each [B]
    for rows, decision in choices:
        log_prob = log_prob.index_add(0, rows, decision.log_prob)
        expected = expected.index_add(0, rows[decision.cells.image], decision.cells.probability.sum(1))
    by_cell = phase.mean(torch.cat([decision.cells.probability for _, decision in choices]))  # p_k, eq. 15: [9]
    return {
        "reinforce": rule.lambda_f * reinforce(log_prob, advantage),
        "cost": rule.lambda_t / 2 * (phase.mean(expected) - c_t).square(),
        "diversity": rule.lambda_r / 2 * (by_cell - c_r).square().mean(),
    }


def moving_baseline(phase: TrainingPhase, name: str, mean: Float[Tensor, ""], first: float) -> Float[Tensor, ""]:
    """b of eq. 12 as of the batches before. The training phase's memory keeps it, updated with the `mean` of this batch."""
    before = phase.memory.get(name, torch.full_like(mean, first))
    phase.memory[name] = MOMENTUM * before + (1 - MOMENTUM) * mean
    return before


def _drawing(model: Pyramid) -> Callable[[Tensor, State, Decision], Decision]:
    """Draws cells also for a model with `decide=mode`, because the mode has no gradient."""

    def choose(images: Tensor, state: State, decision: Decision) -> Decision:
        if decision.made != "mode":
            return decision
        assert isinstance(state, PyramidState)
        return model.draw(state, model.cell_logits(state))

    return choose
