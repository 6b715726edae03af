"""Tests of papers' claims on the evidence of cards."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Int
from numpy import ndarray

from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.evaluation.rows import Rows
from glimpsezoo.measures.pairs import paired
from glimpsezoo.measures.result import Result
from glimpsezoo.measures.statistics import Effect, Estimate, over_seeds, proportion, unpaired
from glimpsezoo.reports.claims import JudgedClaim, side_text
from glimpsezoo.workflows.evidence import Evidence, Zoo
from glimpsezoo.zoo.papers import Claim, Side


def exits_at(rows: Rows, threshold: float) -> Int[ndarray, "n"]:
    """The column of each image's exit step under the confidence rule: the first step at `threshold` or above, else the last."""
    sure = rows.confidence >= threshold
    sure[:, -1] = True
    return sure.argmax(1)


def judged(claim: Claim, zoo: Zoo, cost_of: Callable[[Side], float | None]) -> JudgedClaim:
    """The outcome of a claim's test on the zoo's cards. cost_of: MACs of a side by its paper's convention.

    Raises `GlimpseZooError` if a side names an unknown card.
    """
    sides = claim.sides
    if not sides:
        return JudgedClaim(claim, missing=f"needs {claim.needs}")
    if claim.test == "cost":
        return _of_costs(claim, *map(cost_of, sides))
    for side in sides:
        zoo.check(side.card)
    lacking = [side.card for side in sides if not zoo.evidence(side.card)]
    if lacking:
        return JudgedClaim(claim, missing=f"{lacking[0]} is not trained{f': needs {claim.needs}' if claim.needs else ''}")
    found = (_over_a_number if len(sides) == 1 else _compared)(zoo, claim, *sides)
    return replace(found, epochs=tuple(zoo.epochs(side.card) for side in sides))


def _compared(zoo: Zoo, claim: Claim, a: Side, b: Side) -> JudgedClaim:
    """The test of side a against side b."""
    of_a, of_b = zoo.evidence(a.card), zoo.evidence(b.card)
    by_estimates = any(side.corrupted or side.attack for side in (a, b))
    if not (pairs := _by_seed(of_a, of_b, same=a.card == b.card)):
        return JudgedClaim(claim, missing=f"no training of {a.card} has the seed of one of {b.card}")
    found = (_unpaired if by_estimates else _paired)(claim, a, b, pairs)
    return replace(found, trainings=(len(of_a), len(of_b)))


def _of_costs(claim: Claim, a: float | None, b: float | None) -> JudgedClaim:
    if a is None or b is None:
        return JudgedClaim(claim, missing="the cost of one side is not known without a trained card")
    ratio = b / a if claim.factor is not None else a / b
    return JudgedClaim(claim, effect=Effect(ratio, ratio, ratio))


def _by_seed(a: tuple[Evidence, ...], b: tuple[Evidence, ...], *, same: bool) -> list[tuple[str, Evidence, Evidence]]:
    """Pairs of trainings with equal seeds. If one side has a single training, it is paired with all of the other side's."""
    if not same and 1 in {len(a), len(b)}:
        return [(str(x.seed if len(b) == 1 else y.seed), x, y) for x in a for y in b]
    others = {each.seed: each for each in b}
    return [(str(each.seed), each, others[each.seed]) for each in a if each.seed in others]


def _over_a_number(zoo: Zoo, claim: Claim, side: Side) -> JudgedClaim:
    assert claim.percent is not None
    found = zoo.evidence(side.card)
    rows = [_rows(side, each) for each in found]
    hits, wanted = [hits_of(side, each) for each in rows], claim.percent / 100
    each_seed = []
    for evidence, right, seen in zip(found, hits, rows, strict=True):
        share = proportion(right, seen.group)
        each_seed.append((str(evidence.seed), Effect(share.value - wanted, share.low - wanted, share.high - wanted)))
    if len(found) == 1:
        effect = each_seed[0][1]
    else:
        share = over_seeds(np.stack(hits).astype(int), rows[0].group)
        effect = Effect(share.value - wanted, share.low - wanted, share.high - wanted)
    return JudgedClaim(claim, effect=effect, seeds=tuple(each_seed), images=len(rows[0]), data=_data(found[0].result))


def _paired(claim: Claim, a: Side, b: Side, pairs: list[tuple[str, Evidence, Evidence]]) -> JudgedClaim:
    gains, each_seed, seen = [], [], None
    for seed, of_a, of_b in pairs:
        left, right = _rows(a, of_a), _rows(b, of_b)
        if not np.array_equal(left.id, right.id) or not np.array_equal(left.label, right.label):
            raise GlimpseZooError(
                f"expected {side_text(a)} and {side_text(b)} on the same images, got different ones: "
                "correct the claim, or measure both again"
            )
        hits_a, hits_b, seen = hits_of(a, left), hits_of(b, right), left
        pair = paired(a.card, b.card, hits_a, hits_b, left.group)
        turned = paired(b.card, a.card, hits_b, hits_a, left.group)
        each_seed.append((seed, Effect(pair.difference, pair.low, pair.high, min(pair.p, turned.p))))
        gains.append(hits_a.astype(int) - hits_b)
    assert seen is not None
    effect = each_seed[0][1] if len(gains) == 1 else over_seeds(np.stack(gains), seen.group)
    return JudgedClaim(claim, effect=effect, seeds=tuple(each_seed), images=len(seen), data=_data(pairs[0][1].result))


def _unpaired(claim: Claim, a: Side, b: Side, pairs: list[tuple[str, Evidence, Evidence]]) -> JudgedClaim:
    """The test under corruptions or an attack, without pairing. Several seeds are averaged: differences and ends of intervals."""
    each_seed, images = [], 0
    for seed, of_a, of_b in pairs:
        left, right = _estimate(a, of_a.result), _estimate(b, of_b.result)
        if left is not None and right is not None:
            each_seed.append((seed, unpaired(left, right)))
            images = min(left.n, right.n)
    if not each_seed:
        return JudgedClaim(claim, missing=f"not measured of {a.card} and {b.card}")
    value, low, high = (float(np.mean([getattr(each, key) for _, each in each_seed])) for key in ("value", "low", "high"))
    return JudgedClaim(claim, effect=Effect(value, low, high), seeds=tuple(each_seed), images=images, data=_data(pairs[0][1].result))


def _estimate(side: Side, result: Result) -> Estimate | None:
    """The accuracy of a side under corruptions or an attack; None if it was not measured."""
    if side.corrupted:
        found = result.corruptions.by_step if result.corruptions else ()
    elif side.attack:
        alike = [each for each in result.attacks if each.name == side.attack and side.attack_steps in (None, each.steps)]
        found = alike[0].by_step if alike else ()
    else:
        found = tuple(step.top1 for step in result.accuracy.steps) if result.accuracy else ()
    place = (side.step or len(found)) - 1
    return found[place] if 0 <= place < len(found) else None


def hits_of(side: Side, rows: Rows) -> Bool[ndarray, "n"]:
    """Which images a side classifies correctly at the step where it stops."""
    if side.confidence is not None:
        return rows.hits[np.arange(len(rows)), exits_at(rows, side.confidence)]
    if side.step and side.step > rows.steps:
        raise GlimpseZooError(f"a claim expects {side.step} steps of {side.card}, got {rows.steps}: correct the claim")
    return rows.hits[:, (side.step or rows.steps) - 1]


def _rows(side: Side, evidence: Evidence) -> Rows:
    """The rows of a side, sorted by image. Raises `GlimpseZooError` if there are none."""
    if evidence.rows is None:
        raise GlimpseZooError(
            f"expected the rows of {side.card} (seed {evidence.seed}) beside its result, got none: measure it again with --update-card"
        )
    order = np.argsort(evidence.rows.id, kind="stable")
    return type(evidence.rows)(**{name: value[order] for name, value in vars(evidence.rows).items()})


def _data(result: Result) -> str:
    return f"{result.data.name}, {result.data.split}"
