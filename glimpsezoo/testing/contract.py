"""Rules for a model's outputs, declarations and inputs: shapes, regions, costs, gradients, files and unusual inputs."""

import tempfile
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils._pytree import tree_leaves

from glimpsezoo.core.macs import Meter, count_macs
from glimpsezoo.core.protocol import PHASES, State
from glimpsezoo.core.regions import Decision
from glimpsezoo.core.rollout import Record, Trace, rollout
from glimpsezoo.core.rounding import apart
from glimpsezoo.settings import Settings
from glimpsezoo.testing.case import Case, RuleResult
from glimpsezoo.testing.invariance import same
from glimpsezoo.zoo.card_config import CardConfig, CardData, CardTask
from glimpsezoo.zoo.cards import Card, misfits, write_card
from glimpsezoo.zoo.results import evidence

REACHED = 1e-5  # share of the pixels' gradient above which gradient passes through the decisions, beyond rounding
MARGIN = 0.5  # px that a region may reach outside the image, because regions are reported to half a pixel


def shapes(case: Case) -> RuleResult:
    """Logits are finite and [B, classes] at every step; the first dimension of features is the regions, of decisions the images."""
    model, classes = case.model, len(case.model.task.classes)
    trace = rollout(model, case.images, noise=case.noise(), record=Record(every_step=True))
    numbers = {"logits": list(trace.logits.shape), "looks": len(trace.looks), "steps": model.steps}
    state, decision = model.start(case.images, case.noise())
    features = [leaf for leaf in tree_leaves(model.sense(case.images, state, decision.regions)) if isinstance(leaf, Tensor)]
    if any(leaf.ndim == 0 or len(leaf) != len(decision.regions) for leaf in features):
        got = [list(leaf.shape) for leaf in features]
        return RuleResult(numbers, f"expected features with a row for each of {len(decision.regions)} regions, got {got}")
    before = torch.zeros(len(case.images), dtype=torch.long, device=case.images.device)
    for step, look in enumerate(trace.looks, 1):
        assert look.logits is not None  # every step was classified
        if look.logits.shape != (len(look.rows), classes):
            return RuleResult(numbers, f"expected logits [{len(look.rows)}, {classes}] at step {step}, got {list(look.logits.shape)}")
        if not look.logits.isfinite().all():
            return RuleResult(numbers, f"expected finite logits at step {step}, got {int((~look.logits.isfinite()).sum())} that are not")
        if problem := _problem_of(look.decision, before[look.rows]):
            return RuleResult(numbers, f"{problem} at step {step}")
        before[look.rows] += look.decision.regions.counts()
    return RuleResult(numbers)


def _problem_of(decision: Decision, before: Tensor) -> str:
    """What is wrong with the layout of a decision, if anything. before: [b] the number of earlier regions of each image."""
    regions, batch = decision.regions, len(before)
    for name in ("log_prob", "entropy"):
        if getattr(decision, name).shape != (batch,):
            return f"expected {name} [{batch}], got {list(getattr(decision, name).shape)}"
    if ((regions.image < 0) | (regions.image >= batch)).any() or (regions.image.diff() < 0).any():
        return f"expected regions ordered by image, of images 0 to {batch - 1}"
    if ((regions.parent < -1) | (regions.parent >= before[regions.image])).any():
        return "expected parents among the earlier regions, or -1 for none"
    return ""


def regions(case: Case) -> RuleResult:
    """Regions lie inside the image to half a pixel; if the model declares its `padding`, only their centres have to."""
    trace = rollout(case.model, case.images, noise=case.noise())
    every = [look.decision.regions for look in trace.looks]
    centre, half = torch.cat([r.centre for r in every]), torch.cat([r.half for r in every])
    height, width = case.images.shape[2:]
    pixels = centre.new_tensor([width, height]) / 2
    outside = ((centre.abs() + half - 1) * pixels).max().item()
    centres = ((centre.abs() - 1) * pixels).max().item()
    smallest = half.min().item()
    numbers = {"regions": len(centre), "furthest edge outside, px": max(0.0, outside), "padding": case.model.padding or "none"}
    if not (centre.isfinite().all() and half.isfinite().all() and smallest > 0):
        return RuleResult(numbers, f"expected finite centres and scales above 0, got a scale of {smallest:g}")
    if case.model.padding is None and outside > MARGIN + 1e-3:
        return RuleResult(numbers, f"a region reaches {outside:.3g} px beyond the image: keep it inside, or declare the model's padding")
    if centres > MARGIN + 1e-3:
        return RuleResult(
            numbers, f"the centre of a region lies {centres:.3g} px outside the image: padding is only for the edges of regions"
        )
    return RuleResult(numbers)


def macs(case: Case) -> RuleResult:
    """The MACs of an image do not depend on the rest of its batch, and the sum over phases is a full count of the rollout."""
    images, noise = case.images, case.noise()
    forwards, meter = _measured(case, images, noise)
    backwards, _ = _measured(case, images.flip(0), noise.select(torch.arange(len(images), device=images.device).flip(0)))
    assert forwards.macs is not None  # the meter was given
    assert backwards.macs is not None
    tables = [(getattr(forwards.macs, phase), getattr(backwards.macs, phase).flip(0)) for phase in PHASES]
    unequal = sum(int((a != b).sum()) for a, b in tables)
    phases = forwards.macs.stopped_at(case.model.steps)
    last = int(sum(int(part.sum()) for part in phases.values()))
    every = int(sum(int(part.sum()) for part in forwards.macs.stopped_at(case.model.steps, classify_every_step=True).values()))
    full = count_macs(lambda: rollout(case.model, images, noise=noise))
    full_every = count_macs(lambda: rollout(case.model, images, noise=noise, record=Record(every_step=True)))
    numbers = {phase: round(part.double().mean().item()) for phase, part in phases.items()}
    numbers |= {"sum": last, "full count": full.macs, "unequal": unequal, "uncounted": sorted(meter.uncounted)}
    if (last, every) != (full.macs, full_every.macs):
        problem = (
            f"the phases' MACs differ from a full count by {last - full.macs:+,} ({every - full_every.macs:+,} with every step classified)"
        )
        return RuleResult(numbers, f"{problem}: let work() distinguish images of different cost")
    if unequal:
        return RuleResult(numbers, "images have other costs in another order: let work() distinguish images of different cost")
    return RuleResult(numbers)


def _measured(case: Case, images: Tensor, noise: Any) -> tuple[Trace, Meter]:
    """A rollout with the cost of every step, counted by a new meter."""
    meter = Meter(case.model)
    return rollout(case.model, images, noise=noise, record=Record(every_step=True, meter=meter)), meter


def gradient(case: Case) -> RuleResult:
    """Pixels get a gradient; part of it passes through the decisions if and only if they are regressed or have a surrogate."""
    whole, trace = _gradient(case, free=True)
    frozen, _ = _gradient(case, free=False)
    made = sorted({look.decision.made for look in trace.looks[1:]})
    share = ((whole - frozen).norm() / whole.norm().clamp(min=1e-30)).item()
    numbers = {
        "gradient": whole.norm().item(),
        "through decisions": share,
        "made": made or ["given"],
        "surrogate": case.model.surrogate or "none",
    }
    if not whole.norm() > 0:
        return RuleResult(numbers, "no gradient of the logits reaches the pixels: detach nothing in eval mode")
    learned = case.model.policy == "learned" and len(trace.looks) > 1
    expected = case.model.surrogate is not None or (learned and "regressed" in made)
    if expected and not share > REACHED:
        return RuleResult(numbers, "no gradient passes through the decisions, though they are regressed or a surrogate is declared")
    if share > REACHED and not expected:
        return RuleResult(numbers, "a gradient passes through hard choices: declare the surrogate that makes it")
    return RuleResult(numbers)


def _gradient(case: Case, *, free: bool) -> tuple[Float[Tensor, "B C H W"], Trace]:
    """The gradient of a fixed mixture of the logits with respect to the pixels, including the path through decisions if `free`."""

    def cut(images: Tensor, state: State, decision: Decision) -> Decision:
        return decision if free else decision.detached()

    with torch.enable_grad():
        images = case.images.clone().requires_grad_()
        trace = rollout(case.model, images, noise=case.noise(), choose=cut)
        weights = case.noise().uniform(0, trace.logits[0].numel()).view_as(trace.logits) - 0.5
        (found,) = torch.autograd.grad((trace.logits * weights).sum(), images, allow_unused=True)
    return (torch.zeros_like(images) if found is None else found).detach(), trace


def round_trip(case: Case) -> RuleResult:
    """A card that is written and read again has the same model: settings, task, tensors and logits."""
    model = case.model
    if not isinstance(model.config, Settings):
        return RuleResult({}, f"expected the model's config to be its Settings, got a {type(model.config).__name__}: set self.config")
    config = CardConfig(
        name="conformance", model=type(model).__name__, plugin="conformance", config=model.config.model_dump(mode="json"),
        task=CardTask.model_validate(vars(model.task)), data=CardData(name="made-up"), weights=None,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        write_card(Path(folder), config, model)
        card = Card.read(Path(folder))
        settings, task = type(model.config).parse(card.config.config, owner="the card"), card.config.task.task()
        if (settings, task) != (model.config, model.task):
            return RuleResult({}, "the settings or the task change when a card is written and read: make them survive JSON")
        again = case.rebuilt(seed=1)
        card.load_into(again.model, changed={})
        assert card.config.weights is not None  # write_card wrote them
        numbers = {"tensors": len(model.state_dict()), "bytes": card.config.weights.bytes}
    problem = "a model loaded from its card has other outputs: keep everything in the state dict"
    found = same(case, problem, lambda own: [(own.run(), replace(own, model=deepcopy(again.model).to(own.images.dtype)).run())])
    return found._replace(numbers={**numbers, **found.numbers})


def card(case: Case) -> RuleResult:
    """The card's weights match its hash and the model, and its evidence was measured with them."""
    if case.card is None:
        return RuleResult({}, skipped="the model was not loaded from a card")
    tensors, own = case.card.weights(), case.model.state_dict()
    found = misfits(tensors, own)
    changed = [name for name in own if name in tensors and not torch.equal(own[name].cpu(), tensors[name])] if not found else []
    result = evidence(case.card)
    numbers = {"tensors": len(tensors), "misfits": len(found), "changed": len(changed), "measured": "yes" if result else "no"}
    if found or changed:
        which = found[0] if found else f"tensor {changed[0]} has other values"
        return RuleResult(numbers, f"the model's weights are not those of card {case.card.name!r}: {which}")
    if result and result.model.config != case.card.config.config:
        return RuleResult(numbers, f"the evidence of card {case.card.name!r} is of other settings: measure it again")
    if (case.card.folder / "result.json").is_file() and result is None:
        return RuleResult(numbers, f"the result.json of card {case.card.name!r} was measured with other weights: measure it again")
    return RuleResult(numbers)


def _runs(case: Case, numbers: dict[str, Any]) -> RuleResult:
    """Check that a rollout has one row of finite logits per image."""
    logits = rollout(case.model, case.images, noise=case.noise()).logits
    numbers |= {"logits": list(logits.shape)}
    if logits.ndim != 2 or len(logits) != len(case.images):
        return RuleResult(numbers, f"expected a row of logits for each of {len(case.images)} images, got {list(logits.shape)}")
    wrong = int((~logits.isfinite()).sum())
    return RuleResult(numbers, f"expected finite logits, got {wrong} that are not" if wrong else "")


def odd_size(case: Case) -> RuleResult:
    """A model for images of odd sides that are not square runs, or refuses in one line."""
    height, width = case.model.task.image_size
    size = (height | 1, (3 * width // 4) | 1)
    return _runs(case.rebuilt(task=replace(case.model.task, image_size=size)), {"size": f"{size[0]} x {size[1]}"})


def batch_of_one(case: Case) -> RuleResult:
    """A batch of one image runs."""
    return _runs(replace(case, images=case.images[:1]), {})


def one_class(case: Case) -> RuleResult:
    """A model of a single class runs, or refuses in one line."""
    return _runs(case.rebuilt(task=replace(case.model.task, classes=case.model.task.classes[:1])), {})


def float64(case: Case) -> RuleResult:
    """With weights and images in double precision, everything is computed in double precision."""
    logits = rollout(case.model, case.images, noise=case.noise()).logits
    twin = case.doubled
    found = _runs(twin, {})
    if found.problem:
        return found
    double = rollout(twin.model, twin.images, noise=twin.noise()).logits
    off = (apart(logits, double).max() / double.abs().max().clamp(min=1e-30)).item()
    numbers = {**found.numbers, "type": str(double.dtype).removeprefix("torch."), "off float32 by": off}
    if double.dtype != torch.float64:
        return RuleResult(numbers, f"expected logits in float64, got {double.dtype}: create tensors with the dtype of the images")
    return RuleResult(numbers)


def bfloat16(case: Case) -> RuleResult:
    """In bfloat16, logits are finite and places are still computed in full precision."""
    with torch.autocast(case.images.device.type, torch.bfloat16):
        trace = rollout(case.model, case.images, noise=case.noise())
    coarse = {
        f"{name} in {str(value.dtype).removeprefix('torch.')} at step {step}"
        for step, look in enumerate(trace.looks, 1)
        for name, value in (("centre", look.decision.regions.centre), ("scale", look.decision.regions.scale))
        if value.dtype != case.images.dtype
    }
    numbers = {"logits": list(trace.logits.shape), "coarse": sorted(coarse)}
    if coarse:
        problem = f"expected regions in float32, got their {min(coarse)}, which rounds places to pixels"
        return RuleResult(numbers, f"{problem}: convert what the locator computes before the sigmoid or the like")
    wrong = int((~trace.logits.isfinite()).sum())
    return RuleResult(numbers, f"expected finite logits, got {wrong} that are not" if wrong else "")
