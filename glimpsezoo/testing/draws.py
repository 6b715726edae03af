"""Rules for drawn decisions: their log-probabilities, and the noise that they are drawn from."""

import math
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from glimpsezoo.core.noise import Noise
from glimpsezoo.core.protocol import GlimpseModel
from glimpsezoo.core.regions import Decision
from glimpsezoo.core.rollout import Record, rollout
from glimpsezoo.testing.case import Case, RuleResult

DRAWS = 4096  # of one decision of one image
LOOKED_AT = 3  # decisions of a run that are drawn again: the first ones
UNLIKELY = 6.0  # standard deviations: an honest model exceeds them in one of 1e9 comparisons, if they are normal
SIDE = 4  # of the grid of cells over the middle of the drawn places in which densities are compared
MIDDLE = (0.1, 0.9)  # quantiles of the places, along each axis, that bound it
EXPECTED = 5.0  # draws of an outcome that are expected if it is compared by itself
FEW = DRAWS // 4  # different values or regions: there are more if places are drawn and not rounded
CLAMPED = 5  # as many equal coordinates are not drawn but clamped


@dataclass(frozen=True)
class Drawn:
    """Draws of one decision of one image, which differ in their noise alone."""

    step: int
    """How many steps were taken before."""
    decision: Decision
    numbers: Float[Tensor, "draws 4"]
    """Per draw: the sums of the regions' x, y and scale, and how many there are."""
    outcomes: list[bytes]
    """Per draw: all of its regions."""

    @classmethod
    def of(cls, step: int, decision: Decision) -> "Drawn":
        regions = decision.regions
        rows = torch.cat([regions.centre, regions.scale[:, None], torch.ones_like(regions.scale)[:, None]], 1).double().cpu()  # [N, 4]
        numbers = rows.new_zeros(regions.batch, 4).index_add(0, regions.image.cpu(), rows)
        counts = regions.counts().tolist()
        return cls(step, decision, numbers, [part.numpy().tobytes() for part in rows.split(counts)])


def draws_of(case: Case, count: int = DRAWS) -> Iterator[Drawn]:
    """Draws of the first decisions of the case's first image that are `sampled`: in training mode, where more models draw, or in eval mode.

    What the model knows of the image stays what it is in one run; only the noise differs.
    """
    for training in (True, False):
        model = deepcopy(case.model).train(training)
        found = [drawn for drawn in _draws(model, case, count) if drawn.decision.made == "sampled"]
        if found:
            yield from found
            return


def _draws(model: GlimpseModel[Any], case: Case, count: int) -> Iterator[Drawn]:
    noise, first = case.noise().select(torch.zeros(count, dtype=torch.long, device=case.images.device)), case.images[:1]
    noise, images = noise.fork(torch.arange(count, device=first.device)), first.expand(count, *first.shape[1:])
    if _differs(model, images[:2], noise.select(torch.arange(2, device=first.device))):
        yield Drawn.of(0, _first(model, images, noise))
    looks = rollout(model, case.images, noise=case.noise(), steps=min(model.steps, LOOKED_AT), record=Record(states=True)).looks
    for step, look in enumerate(looks[: model.steps - 1], 1):
        assert look.state is not None  # because states are recorded
        if not len(look.rows) or look.rows[0] != 0:
            return  # the first image has finished
        state = look.state.select(torch.zeros(count, dtype=torch.long, device=first.device))
        decision = model.follows.next_decision(model, images, replace(state, noise=noise))
        if decision is None:
            return
        yield Drawn.of(step, decision)


def _first(model: GlimpseModel[Any], images: Float[Tensor, "B C H W"], noise: Noise) -> Decision:
    state, own = model.start(images, noise)
    return model.follows.decide(model, images, state, own)


def _differs(model: GlimpseModel[Any], images: Float[Tensor, "B C H W"], noise: Noise) -> bool:
    """Whether the first decision is drawn: then it is worth starting with every draw, which may cost much."""
    one, other = Drawn.of(0, _first(model, images, noise)).outcomes
    return one != other


def log_prob(case: Case) -> RuleResult:
    """Log-probabilities are those of what is drawn: a density over places, or the probability of a choice; minus their mean is the entropy.

    4,096 draws of a decision are compared. Places: a draw counts exp(-log_prob), so that equal areas of the middle of the places have equal
    sums (the unit of length is free, and the density may be that before a tanh). Choices: frequencies. Tolerance: 6 standard deviations.
    """
    if case.model.policy != "learned":
        return RuleResult({}, skipped=f"the policy {case.model.policy!r} chooses, which declares no log-probabilities")
    numbers: dict[str, Any] = {"draws": DRAWS, "decisions": 0}
    for drawn in draws_of(case):
        numbers["decisions"] += 1
        found, problem = _compared(drawn)
        numbers |= {f"{name} at step {drawn.step + 1}": value for name, value in found.items()}
        if problem:
            return RuleResult(numbers, f"{problem} at step {drawn.step + 1}")
    return RuleResult(numbers, skipped="" if numbers["decisions"] else "no decision is drawn")


def _compared(drawn: Drawn) -> tuple[dict[str, Any], str]:
    """The comparisons of a decision, in standard deviations, and what is wrong, if anything."""
    log_p, entropy = drawn.decision.log_prob.double().cpu(), drawn.decision.entropy.double().cpu()
    if not (log_p.isfinite().all() and entropy.isfinite().all()):
        return {}, "expected finite log-probabilities and entropies of a drawn decision"
    found: dict[str, Any] = {}
    kinds = len(set(drawn.outcomes))
    clamped = torch.zeros_like(log_p, dtype=torch.bool)
    if kinds <= FEW and _chosen(drawn, log_p):
        found["frequencies, sd"], total = _frequencies(drawn, log_p)
        if total > 1 + 1e-4:
            return found, f"the probabilities of {kinds} choices add up to {total:.3g}, which is more than 1"
    elif (drawn.numbers[:, 3] == 1).all() and _alike(drawn.numbers[:, 2]):
        places, clamped = drawn.numbers[:, :2], _clamped(drawn.numbers)
        plain, bent = (_density(chart[~clamped], log_p[~clamped]) for chart in (places, places.clamp(-1, 1).atanh()))
        found["density, sd"] = min(plain, bent)
    if any(value > UNLIKELY for value in found.values()):
        return (
            found,
            "log_prob is not that of the drawn regions: score what was drawn, by the distribution it was drawn from",
        )
    if not clamped.any():
        gap = log_p + entropy
        found["entropy, sd"] = (gap.mean().abs() / (gap.std() / math.sqrt(len(gap)) + 1e-5)).item()
        if found["entropy, sd"] > UNLIKELY:
            return found, f"expected the entropy to be minus the mean log-probability, {-log_p.mean():.3g}, got {entropy.mean():.3g}"
    return found, ""


def _chosen(drawn: Drawn, log_p: Float[Tensor, "draws"]) -> bool:
    """Whether equal regions have equal log-probabilities, so that these are of a choice, not of a place that is rounded to pixels."""
    first: dict[bytes, float] = {}
    return all(abs(first.setdefault(outcome, value) - value) < 1e-4 for outcome, value in zip(drawn.outcomes, log_p.tolist(), strict=True))


def _alike(values: Float[Tensor, "n"]) -> bool:
    return bool(((values - values[0]).abs() <= 1e-6).all())


def _clamped(numbers: Float[Tensor, "draws 4"]) -> Bool[Tensor, "draws"]:
    """Draws whose x or y many others share; of places that are rounded to pixels, those at the ends."""
    flags = []
    for values in numbers[:, :2].unbind(1):
        known, which, counts = values.unique(return_inverse=True, return_counts=True)
        if len(known) <= FEW:
            counts[1:-1] = 0
        flags.append(counts[which] >= CLAMPED)
    return flags[0] | flags[1]


def _frequencies(drawn: Drawn, log_p: Float[Tensor, "draws"]) -> tuple[float, float]:
    """How far the frequencies of the choices are from their probabilities, in standard deviations; and the sum of these probabilities."""
    counts: dict[bytes, int] = {}
    chances: dict[bytes, float] = {}
    for outcome, chance in zip(drawn.outcomes, log_p.exp().tolist(), strict=True):
        counts[outcome], chances[outcome] = counts.get(outcome, 0) + 1, chance
    total, draws = sum(chances.values()), len(log_p)
    usual = [(counts[key], draws * chance) for key, chance in chances.items() if draws * chance >= EXPECTED]
    rest = draws - sum(count for count, _ in usual), draws - sum(expected for _, expected in usual)
    cells = [*usual, rest] if rest[1] >= EXPECTED else usual
    square = sum((count - expected) ** 2 / expected for count, expected in cells)
    return _deviations(square, max(1, len(cells) - 1)), total


def _density(places: Float[Tensor, "n 2"], log_p: Float[Tensor, "n"]) -> float:
    """How far equal areas are from equal sums of 1 / density, in standard deviations.

    The expected sum of a cell is its area in the units of the density, whatever the density is; so cells of equal size have equal sums.
    """
    kept = places.isfinite().all(1)
    places, weight = places[kept], (log_p.mean() - log_p[kept]).exp()
    low, high = torch.stack([_middle(values) for values in places.unbind(1)], 1)
    if not (high > low).all():
        return math.inf
    cell = ((places - low) / (high - low) * SIDE).floor().long()
    inside = ((cell >= 0) & (cell < SIDE)).all(1)
    index = cell[inside, 1] * SIDE + cell[inside, 0]
    sums = weight.new_zeros(SIDE * SIDE).index_add(0, index, weight[inside])
    squares = weight.new_zeros(SIDE * SIDE).index_add(0, index, weight[inside].square())  # the variance of a sum
    if not (squares > 0).all():
        return math.inf
    common = (sums / squares).sum() / (1 / squares).sum()
    return _deviations(((sums - common).square() / squares).sum().item(), SIDE * SIDE - 1)


def _middle(values: Float[Tensor, "n"]) -> Float[Tensor, "2"]:
    """The bounds of the middle of the values, such that it has parts of equal size: of rounded values, with equally many in each part."""
    bounds, known = torch.quantile(values, torch.tensor(MIDDLE, dtype=values.dtype)), values.unique()
    if len(known) > FEW or len(known) < 2:
        return bounds
    gap = known.diff().min()
    first = known[known >= bounds[0] - gap / 4][0]
    parts = ((bounds[1] - first) / gap + 1.25).div(SIDE, rounding_mode="floor")  # how many values each has
    return torch.stack([first - gap / 2, first - gap / 2 + parts * SIDE * gap])


def _deviations(square: float, freedom: int) -> float:
    """A value of chi-square with `freedom` degrees in standard deviations of a normal variable (Wilson & Hilferty, 1931)."""
    spread = 2 / (9 * freedom)
    return ((square / freedom) ** (1 / 3) - (1 - spread)) / math.sqrt(spread)


def fresh_noise(case: Case) -> RuleResult:
    """Every step draws from noise of its own: what is drawn is independent of what other steps draw."""
    if not case.model.follows.reads_own:
        return RuleResult({}, skipped="another policy makes the decisions, which may draw an order of places once")
    return independent(list(draws_of(case, DRAWS // 4)))


def independent(drawn: list[Drawn]) -> RuleResult:
    """Whether draws of several steps are uncorrelated over their noise, given what the model knew in each of them."""
    numbers: dict[str, Any] = {"draws": DRAWS // 4, "decisions": len(drawn)}
    if len(drawn) < 2:
        return RuleResult(numbers, skipped="fewer than two decisions are drawn")
    largest, steps = 0.0, (0, 0)
    for k, one in enumerate(drawn):
        for other in drawn[:k]:
            found = _correlation(one.numbers, other.numbers)
            largest, steps = max((largest, steps), (found, (other.step + 1, one.step + 1)))
    numbers["correlation, sd"] = largest
    if largest > UNLIKELY:
        problem = f"what is drawn at steps {steps[0]} and {steps[1]} comes from the same noise: draw by noise.uniform(state.step, ...)"
        return RuleResult(numbers, problem)
    return RuleResult(numbers)


def _correlation(one: Float[Tensor, "draws k"], other: Float[Tensor, "draws k"]) -> float:
    """The largest correlation of a column with the same column, in standard deviations of that of independent columns."""
    a, b = (each - each.mean(0) for each in (one, other))
    scale = a.norm(dim=0) * b.norm(dim=0)
    share = torch.where(scale > 1e-9, (a * b).sum(0) / scale.clamp(min=1e-9), 0.0)
    return (share.abs().max() * math.sqrt(len(one))).item()
