"""The rule for policies other than the model's own: all that the model claims to follow."""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from glimpsezoo.core.protocol import GlimpseModel, Policy
from glimpsezoo.core.regions import Decision
from glimpsezoo.core.rollout import Record, rollout
from glimpsezoo.core.rounding import region_table
from glimpsezoo.specs import PolicySpec
from glimpsezoo.testing import contract
from glimpsezoo.testing.case import Case, RuleResult
from glimpsezoo.testing.draws import draws_of, independent
from glimpsezoo.zoo.plugins import registry
from glimpsezoo.zoo.policies import find_policy

NEARLY = 1e-4  # of the width of an image, and of the largest logit
ENDS = (0.1, 0.9)  # near the ends of the range of places


def policies(case: Case) -> RuleResult:
    """Under every policy that it can follow, the model keeps the rules for looks and noise; `look_at` looks where it is told."""
    if case.model.steps == 1:
        return RuleResult({}, skipped="a model of one step has no choice")
    named, broken = list[Policy](), list[str]()
    for spec in registry().all(PolicySpec):
        if spec.name not in ("learned", case.model.policy):
            try:
                named.append(find_policy(spec.name))
            except Exception:  # a policy of a plugin may fail in any way, which is no fault of the model
                broken.append(spec.name)
    followed = [policy for policy in named if not policy.obstacle(case.model)]
    numbers: dict[str, Any] = {"followed": [policy.name for policy in followed], **({"broken": broken} if broken else {})}
    if not followed:
        return RuleResult(numbers, skipped="it looks only where its own locator says")
    if problem := _misplaced(case):
        return RuleResult(numbers, problem)
    for policy in followed:
        if problem := _problem_of(case, policy):
            return RuleResult(numbers, f"policy {policy.name!r}: {problem}")
    return RuleResult(numbers)


def _problem_of(case: Case, policy: Policy) -> str:
    """What is wrong under a policy, if anything."""
    if policy.needs_labels:
        labels = torch.arange(len(case.images), device=case.images.device) % len(case.model.task.classes)
        policy = policy.told(case.noise(), labels)
    twin = replace(case, model=case.model.following(policy))
    for rule in (contract.shapes, contract.regions):
        if problem := rule(twin).problem:
            return problem
    exact = replace(twin, model=twin.doubled.model, images=twin.doubled.images) if twin.exact else twin
    order = torch.arange(len(case.images), device=case.images.device).flip(0)
    if not _same(exact, _run(exact), _run(exact, order)):
        return "images have other looks or outputs in another order: draw from the images' noise, and let no image see another"
    if not policy.needs_labels and not twin.model.stochastic and not _same(exact, _run(exact), _run(exact, seed=1)):
        return "other noise changes the run, though neither the policy nor the model is stochastic"
    return independent(list(draws_of(twin, 256))).problem if policy.name == "random" else ""


def _run(case: Case, rows: Tensor | None = None, *, seed: int = 0) -> tuple[Tensor, ...]:
    """The places of every step, and last the logits, in the order of the images' numbers."""
    rows = torch.arange(len(case.images), device=case.images.device) if rows is None else rows
    torch.manual_seed(int(rows[0]))  # torch's own generator must not matter
    trace = rollout(case.model, case.images[rows], noise=case.noise(seed).select(rows), record=Record(every_step=True))
    return *(region_table(look, rows) for look in trace.looks), trace.logits_by_step()[rows.argsort()].flatten(1).double()


def _same(case: Case, one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> bool:
    allowed = NEARLY * max(1.0, one[-1].abs().max().item())
    if len(one) != len(other):
        return False
    return all(a.shape == b.shape and bool(((a - b).abs() <= allowed).all()) for a, b in zip(one, other, strict=True))


def _misplaced(case: Case) -> str:
    """What is wrong with `look_at`, if anything: it looks further along an axis if it is told to, in the size that it is told."""
    (look,) = rollout(case.model, case.images, noise=case.noise(), steps=1, record=Record(states=True)).looks
    assert look.state is not None  # because states are recorded
    state, model = replace(look.state, step=1), case.model
    for axis, name in enumerate("xy"):
        low, high = (_looked(model, state, end, axis) for end in ENDS)
        if low.made != "searched":
            return f"look_at makes a decision that is {low.made!r}, expected 'searched' as it was told: pass `made` on"
        moved = _mean_centre(high) - _mean_centre(low)  # [B, 2]
        if not (moved[:, axis] > 0).all() or not (moved[:, 1 - axis].abs() <= NEARLY).all():
            got = ", ".join(f"{value:.3g}" for value in moved[0].tolist())
            return f"look_at moves by ({got}) in (x, y) if {name} goes from {ENDS[0]} to {ENDS[1]}: expected to the right in {name} alone"
    if model.sizes is not None:
        size = math.sqrt(model.sizes[0] * model.sizes[1])
        found = _looked(model, state, 0.5, 0, size).regions.scale
        if not ((found - size).abs() <= NEARLY).all():
            return f"look_at has regions of the scale {found[0].item():.3g}, expected the {size:.3g} that it was told"
    return ""


def _looked(model: GlimpseModel[Any], state: Any, end: float, axis: int, scale: float | None = None) -> Decision:
    batch, weight = len(state.noise.keys), next(model.parameters())
    place = torch.full((batch, 2), 0.5, dtype=weight.dtype, device=weight.device)
    place[:, axis] = end
    return model.look_at(state, place, None if scale is None else torch.full_like(place[:, 0], scale), "searched")


def _mean_centre(decision: Decision) -> Tensor:
    """[B, 2]: the mean centre of each image's regions."""
    regions = decision.regions
    total = regions.centre.new_zeros(regions.batch, 2).index_add(0, regions.image, regions.centre)
    return total / regions.counts().clamp(min=1)[:, None]
