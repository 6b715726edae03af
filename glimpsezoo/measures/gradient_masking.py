"""Gradient masking: whether attacks on a model are reliable, or the model hides its gradient from them.

After Athalye, Carlini & Wagner, "Obfuscated gradients give a false sense of security", ICML 2018, section 3.1, and Carlini et al., "On
evaluating adversarial robustness", 2019, section 5. The checks:

- huge_eps: does the white-box attack reach about 0 % accuracy at an eps that can turn any image into plain grey?
- loss_in_eps: does the loss that it reaches grow with eps?
- black_box: does Square, which uses no gradient, break images that the white-box attack does not?
- loss_gradient: is the gradient of the loss zero although the prediction changes nearby?
- margin, looks: do autograd's derivatives agree with finite differences?
- locator: does the gradient pass through the locator?
- reported: does APGD, at the same eps, break images that the attack with the reported accuracy does not?

Each check is ok, suspect or unreliable; the verdict is the worst of them. The white-box attack is APGD on the cross entropy.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from glimpsezoo.conditions.attacks.apgd import Ascent
from glimpsezoo.conditions.attacks.ball import random_start
from glimpsezoo.conditions.attacks.base import Attack, attacker_noise, weights_fixed
from glimpsezoo.conditions.attacks.settings import APGDSettings, SquareSettings
from glimpsezoo.conditions.attacks.square import Square
from glimpsezoo.conditions.attacks.victim import Victim, cross_entropy
from glimpsezoo.core.inference import evaluating
from glimpsezoo.core.noise import Noise
from glimpsezoo.core.protocol import GlimpseModel
from glimpsezoo.data.base import ImageData
from glimpsezoo.data.limited import limited
from glimpsezoo.data.loading import batches
from glimpsezoo.errors import one_line
from glimpsezoo.evaluation.jobs import Job, identity_of
from glimpsezoo.evaluation.plan import BACKWARD, Planned, PlannedFinding
from glimpsezoo.hashing import module_hash
from glimpsezoo.measures import derivatives
from glimpsezoo.measures.attacked import AttackedMeasure, attack_passes
from glimpsezoo.measures.base import Bench, Done, Measure, sections_of
from glimpsezoo.measures.derivatives import Derivatives, compare, exact, inner_points, looks, margins, reached, vanishing
from glimpsezoo.measures.pairs import paired
from glimpsezoo.measures.result import Result
from glimpsezoo.measures.shown import Cell, Column, Layout, Table
from glimpsezoo.measures.statistics import fair_coin_tail
from glimpsezoo.measures.text import short
from glimpsezoo.measures.threats import JUDGED, heading, judged, judged_names, record_named, verdict_on
from glimpsezoo.schema import Section
from glimpsezoo.settings import Settings

Verdict = Literal["ok", "suspect", "unreliable"]
_ORDER: tuple[Verdict, ...] = ("ok", "suspect", "unreliable")

IMAGES = 50  # images per verdict
HUGE = 0.5  # an eps that can turn every image into plain grey, so that nothing is left to recognise
CURVE = tuple(k / 255 for k in (2, 4, 8, 16, 32))
# Accuracy at HUGE: a few images may survive a short attack; a fifth is above chance for ten classes.
HUGE_OK, HUGE_BAD = 0.05, 0.2
# Drop of the mean loss from one eps to the next, as a share of the loss: random starts explain a tenth; at a half, the search fails.
FALL_OK, FALL_BAD = 0.1, 0.5
LEAST_LOSS = 0.01  # nats: below it, labels have a probability of 99 %, and changes of the mean are chance
# Images that only the black box breaks: a short white-box attack may miss a twentieth; a one-sided sign test excludes chance.
BLACK_OK, BLACK_P = 0.05, 0.05
# Accuracy that a longer attack removes beyond the reported one: a quick attack may miss a tenth; a fifth changes the result. The whole 95 %
# interval of the difference must exceed the bound: 8 of 50 images are not significantly more than a tenth.
WEAK_OK, WEAK_BAD = 0.1, 0.2
# Images whose loss has no gradient: a twentieth may be too confident for float32; with half of them, an attack has little left to use.
ZERO_OK, ZERO_BAD = 0.05, 0.5
# Autograd's derivative over the true one: kinks shift the median by less than a tenth; a factor of two needs a modified gradient.
FACTOR_OK, FACTOR_BAD = 1.1, 2.0
ERROR_OK, ERROR_BAD = 0.1, 0.5  # the distance of the two, for the same reasons
REACHED_OK, REACHED_BAD = 0.95, 0.5  # share of the images with more than one step; flat regions may exclude a few


class Masking(Section):
    """Whether attacked accuracy is reliable. The verdict is about the run's first attack of a kind that can be judged."""

    verdict: Verdict
    """The worst verdict of all checks."""
    checks: dict[str, dict[str, Any]]
    """The checks by name, each with its numbers and its verdict."""


class MaskingSettings(Settings):
    """`--set masking.KEY`: settings of the gradient-masking checks."""

    steps: int = Field(20, ge=1)
    """Steps of the white-box attack at each eps."""
    queries: int = Field(200, ge=1)
    """Queries of the black-box attack."""
    strong_steps: int = Field(100, ge=1)
    """Steps of the white-box attack that the reported attack is compared with."""
    eot: int = Field(2, ge=1)
    """Runs per gradient of a stochastic model; the gradient is their mean."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of all randomness."""


class GradientMaskingMeasure(Measure):
    """The verdict on each model's first attack that can be judged. It is measured whenever attacks are."""

    record = Masking
    config = MaskingSettings
    few = True

    settings: MaskingSettings
    """Settings of `--set masking.KEY`."""

    @property
    def texts(self) -> list[str]:
        return []

    def plan(self, bench: Bench) -> Iterator[Planned]:
        attacked, data = bench.measure(AttackedMeasure), limited(bench.few, IMAGES)
        for index, attacks in (attacked.attacks if attacked else {}).items():
            reported = next((attack for attack in attacks if _comparable(attack)), None)
            if reported is None:
                continue
            model = bench.models[index]
            yield PlannedFinding(
                index=index,
                key="verdict",
                label="can its attacks be believed?",
                passes=_verdict_passes(self.settings, model, reported),
                images=len(data),
                identity={
                    **identity_of(Job(model, bench.names[index], data), bench.seed),
                    "masking": [self.settings.model_dump(mode="json"), [reported.name, reported.parameters], _code()],
                },
                kind=Masking,
                find=partial(self._found, bench, index, data, reported),
            )

    def _found(self, bench: Bench, index: int, data: ImageData, reported: Attack) -> Masking | None:
        """The verdict. If no image can be read: None, and a note."""
        batch = next(iter(batches(data, 0, len(data), len(data), 0, on_bad_image=bench.on_bad_image)))
        if not len(batch.ids):
            bench.note(index, f"{bench.names[index]}: no verdict on its attacks, because none of {len(data)} images for it can be read")
            return None
        model = bench.models[index]
        with evaluating(model):
            images, labels, ids = (tensor.to(bench.device) for tensor in (batch.images, batch.labels, batch.ids))
            return masking(model, images, labels, ids, self.settings, reported)

    def section(self, bench: Bench, index: int, done: Done) -> Masking | None:
        return next(iter(sections_of(done, index, Masking)), None)

    @classmethod
    def columns(cls, results: Sequence[Result], layout: Layout) -> list[Column]:
        """One column for each attack that at least one verdict is about, placed after the attack."""
        names = judged_names(results) if layout == "board" else judged_names(results)[:1]
        return [
            Column(
                "masking" if len(names) == 1 else f"masking of {name}",
                _cell_of(name),
                words=True,
                verdict=True,
                after=heading(name, results, layout),
            )
            for name in names
        ]

    @classmethod
    def footnotes(cls, results: Sequence[Result], layout: Layout) -> list[str]:
        verdicts = [(result.model.name, verdict_on(result, record)) for result in results if (record := judged(result))]
        doubted = [f"{name} ({verdict})" for name, verdict in verdicts if verdict != "ok"]
        unchecked = [result.model.name for result in results if result.attacks and judged(result) is None]
        lines = [f"masking doubts the attacked accuracy of {', '.join(doubted)}; result.json says why."] if doubted else []
        return [*lines, *([f"masking: not checked for {', '.join(unchecked)}."] if unchecked else [])]

    @classmethod
    def card_text(cls, result: Result) -> list[str | Table]:
        doubted = {name: check for name, check in result.masking.checks.items() if check["verdict"] != "ok"}
        return [
            f"`{name}` is {check['verdict']}: "
            + ", ".join(f"{key.replace('_', ' ')} {short(value)}" for key, value in check.items() if key != "verdict")
            + "."
            for name, check in doubted.items()
        ]


def _cell_of(name: str) -> Callable[[Result, int], Cell]:
    """The verdict on an attack. It stands in the first step's row, or in the last one if only that is shown."""

    def cell(result: Result, step: int) -> Cell:
        record = record_named(result, name)
        return Cell(verdict_on(result, record) if record and step <= 0 else "")

    return cell


def _comparable(attack: Attack) -> bool:
    """Whether this attack can be judged: it must target the label at the last step, in Linf on pixels."""
    settings = attack.settings
    return (settings.norm, settings.space, settings.target, settings.path) == JUDGED


def _verdict_passes(settings: MaskingSettings, model: GlimpseModel[Any], reported: Attack) -> float:
    """Cost of the verdict per image, in forward passes, without its few derivatives."""
    ascents = (len(CURVE) + 1) * settings.steps + settings.strong_steps  # the curve and the huge eps, then the reported one
    runs = settings.eot if model.stochastic else 1
    return runs * (ascents * (1 + BACKWARD) + settings.queries) + attack_passes(reported)


def _code() -> list[str | None]:
    """Hashes of the code that determines the verdict."""
    return [module_hash(name) for name in (__name__, derivatives.__name__)]


def masking(
    model: GlimpseModel[Any],
    images: Float[Tensor, "B C H W"],
    labels: Int[Tensor, "B"],
    ids: Int[Tensor, "B"],
    settings: MaskingSettings | None = None,
    reported: Attack | None = None,
) -> Masking:
    """The verdict on attacks against `model`, which must be in eval mode.

    images: in [0, 1], mostly classified correctly; 50 to 100 are enough. reported: the attack in Linf on pixels with the reported accuracy;
    it may be too weak even if no gradient is masked. Shares refer to these images; losses are in nats.
    """
    settings = settings or MaskingSettings.parse({}, owner="masking")
    start, run = attacker_noise(settings.seed, ids)
    victim = Victim(model, images.detach(), labels, run)
    with torch.no_grad(), weights_fixed(model):
        right = (~victim.wrong(victim.images)).nonzero().squeeze(1)
        if not len(right):
            return Masking(verdict="suspect", checks={"images": {"n": len(images), "right": 0, "verdict": "suspect"}})
        victim, start = victim.select(right), start.select(right)
        checks = {"images": {"n": len(images), "right": len(right), "verdict": "ok"}}
        checks |= _by_attacks(victim, start, settings) | _by_derivatives(victim, start)
        if reported is not None:
            checks["reported"] = _reported(victim, start, settings, reported, ids[right])
    return Masking(verdict=_worst(check["verdict"] for check in checks.values()), checks=checks)


def _by_attacks(victim: Victim, noise: Noise, settings: MaskingSettings) -> dict[str, dict[str, Any]]:
    found = {eps: _ascent(victim, noise, settings, eps, settings.steps) for eps in (*CURVE, HUGE)}
    accuracy = {eps: 1 - success.mean().item() for eps, (_, success) in found.items()}
    losses = [loss.mean().item() for loss, _ in found.values()]
    fall = max(0.0, *((before - after) / max(before, LEAST_LOSS) for before, after in pairwise(losses)))
    eps = min(reversed(CURVE), key=lambda eps: abs(accuracy[eps] - 0.5))  # where both attacks break some images and leave some
    return {
        "huge_eps": {"eps": HUGE, "accuracy": accuracy[HUGE], "verdict": _rising(accuracy[HUGE], HUGE_OK, HUGE_BAD)},
        "loss_in_eps": {
            "eps": list(found),
            "loss": losses,
            "accuracy": list(accuracy.values()),
            "largest_fall": fall,
            "verdict": _rising(fall, FALL_OK, FALL_BAD),
        },
        "black_box": _black_box(victim, noise, settings, eps, found[eps][1] >= 0.5),
    }


def _ascent(victim: Victim, noise: Noise, settings: MaskingSettings, eps: float, steps: int) -> tuple[Tensor, Tensor]:
    """The highest loss [B] and success rate [B] that APGD reaches at this eps."""
    eot = settings.eot if victim.model.stochastic else 1
    attack = APGDSettings.parse({"eps": eps, "steps": steps, "eot": eot}, owner="masking")
    ascent = Ascent(victim, random_start(victim.images, "Linf", eps, noise), cross_entropy, attack, 0)
    _, success, _ = ascent.run()
    return ascent.best.loss, success


def _black_box(victim: Victim, noise: Noise, settings: MaskingSettings, eps: float, white: Tensor) -> dict[str, Any]:
    """How many images only Square breaks, and only the white-box attack, with the verdict."""
    eot = settings.eot if victim.model.stochastic else 1
    attack = Square(SquareSettings.parse({"eps": eps, "steps": settings.queries, "eot": eot}, owner="masking"))
    black = _broken(victim, attack.perturb(victim, noise), eot)
    only_black, only_white = int((black & ~white).sum()), int((white & ~black).sum())
    p = fair_coin_tail(only_white, only_white + only_black)
    share = only_black / len(victim)
    verdict: Verdict = "unreliable" if share > BLACK_OK and p < BLACK_P else "suspect" if share > BLACK_OK else "ok"
    return {"eps": eps, "queries": settings.queries, "only_black": only_black, "only_white": only_white, "p": p, "verdict": verdict}


def _reported(victim: Victim, noise: Noise, settings: MaskingSettings, reported: Attack, ids: Int[Tensor, "B"]) -> dict[str, Any]:
    """How many images only APGD breaks at the reported eps, and only the reported attack, with the verdict."""
    eps, eot = reported.settings.eps, settings.eot if victim.model.stochastic else 1
    weak = _broken(victim, reported.apply(victim.images, victim.labels, ids, victim.model), eot)
    strong = _ascent(victim, noise, settings, eps, settings.strong_steps)[1] >= 0.5
    only_stronger, only_reported = int((strong & ~weak).sum()), int((weak & ~strong).sum())
    counts = {"only_stronger": only_stronger, "only_reported": only_reported, **_gain(only_stronger, only_reported, len(victim))}
    return {"attack": reported.name, "eps": eps, "steps": settings.strong_steps, **counts}


def _gain(only_stronger: int, only_reported: int, n: int) -> dict[str, Any]:
    """The share of n images by which the stronger attack exceeds the reported one, with its 95 % interval and the verdict."""
    alone = np.arange(n)
    stronger, weaker = alone < only_stronger, (alone >= only_stronger) & (alone < only_stronger + only_reported)
    pair = paired("stronger", "reported", stronger, weaker, alone)
    verdict = _rising(pair.low, WEAK_OK, WEAK_BAD)
    return {"gain": pair.difference, "low": pair.low, "high": pair.high, "verdict": verdict}


def _broken(victim: Victim, images: Float[Tensor, "B C H W"], runs: int) -> Bool[Tensor, "B"]:
    """Whether each image is misclassified in at least half of `runs` runs with noise that no attack has used."""
    return torch.stack([victim.wrong(images, run) for run in range(-1, -1 - runs, -1)]).float().mean(0) >= 0.5


def _by_derivatives(victim: Victim, noise: Noise) -> dict[str, dict[str, Any]]:
    zero = vanishing(victim, noise, cross_entropy)
    checks: dict[str, dict[str, Any]] = {"loss_gradient": {"zero": zero, "verdict": _rising(zero, ZERO_OK, ZERO_BAD)}}
    try:
        twin = exact(victim)
    except RuntimeError as error:  # a plugin's model may require float32
        return checks | {"float64": {"error": one_line(error), "verdict": "suspect"}}
    points = inner_points(twin.images, noise)
    if twin.model.surrogate is None:
        checks["margin"] = _judged(compare(margins(twin), points, noise))
    if (function := looks(twin)) is not None:
        checks["looks"] = _judged(compare(function, points, noise))
    if twin.model.policy == "learned" and (share := reached(twin, points)) is not None:
        checks["locator"] = {"reached": share, "surrogate": twin.model.surrogate, "verdict": _locator(twin, share)}
    return checks


def _locator(victim: Victim, share: float) -> Verdict:
    hard = any(look.decision.made not in ("given", "regressed") for look in victim.trace(victim.images).looks)
    if hard and victim.model.surrogate is None:
        return "suspect"  # true gradients, but they do not see hard choices
    return "ok" if share >= REACHED_OK else "suspect" if share >= REACHED_BAD else "unreliable"


def _judged(found: Derivatives) -> dict[str, Any]:
    """The check of derivatives. If none could be resolved, it is suspect."""
    verdict: Verdict = "suspect"
    if found.zero is not None and found.factor is not None and found.error is not None:
        ratio = max(found.factor, 1 / found.factor) if found.factor > 0 else math.inf
        parts = (
            _rising(found.zero, ZERO_OK, ZERO_BAD),
            _rising(ratio, FACTOR_OK, FACTOR_BAD),
            _rising(found.error, ERROR_OK, ERROR_BAD),
        )
        verdict = _worst(parts)
    return {"pairs": found.pairs, "zero": found.zero, "factor": found.factor, "error": found.error, "verdict": verdict}


def _rising(value: float, ok: float, bad: float) -> Verdict:
    """The verdict on a value: ok up to `ok`, unreliable above `bad`."""
    return "ok" if value <= ok else "suspect" if value <= bad else "unreliable"


def _worst(verdicts: Any) -> Verdict:
    return max(verdicts, key=_ORDER.index)
