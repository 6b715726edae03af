"""Whether attacks on a model can be believed, or something hides the gradient from them.

After Athalye, Carlini & Wagner, "Obfuscated gradients give a false sense of security", ICML 2018, section 3.1, and Carlini et al., "On
evaluating adversarial robustness", 2019, section 5. Asked is:

- huge eps: does the white-box attack reach about 0 % where it may change any image into any grey?
- loss in eps: does the loss that it reaches grow with eps?
- black box: does Square, which sees no gradient, break images that it does not?
- loss gradient: is it zero where the prediction changes nearby?
- margin, looks: are autograd's derivatives those of the function?
- locator: does the gradient pass through where the model looks?
- reported: does APGD break images, at the same eps, that the attack whose accuracy is reported leaves?

Each answer is ok, suspect or unreliable; the worst of them is the verdict. The white-box attack is APGD on the cross entropy.
"""

import math
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from glimpsezoo.attacks.apgd import Ascent
from glimpsezoo.attacks.ball import random_start
from glimpsezoo.attacks.base import Attack, attacker_noise, weights_fixed
from glimpsezoo.attacks.derivatives import Derivatives, compare, exact, inner_points, looks, margins, reached, vanishing
from glimpsezoo.attacks.settings import APGDSettings, MaskingSettings, SquareSettings
from glimpsezoo.attacks.square import Square
from glimpsezoo.attacks.victim import Victim, cross_entropy
from glimpsezoo.errors import one_line
from glimpsezoo.noise import Noise
from glimpsezoo.protocol import GlimpseModel
from glimpsezoo.records import Masking
from glimpsezoo.statistics import fair_coin_tail, paired

Verdict = Literal["ok", "suspect", "unreliable"]
_ORDER: tuple[Verdict, ...] = ("ok", "suspect", "unreliable")

HUGE = 0.5  # at which every image can be made plain grey: nothing of it is left to recognise
CURVE = tuple(k / 255 for k in (2, 4, 8, 16, 32))
# Accuracy left at HUGE: a few odd images may survive a short attack; a fifth is more than guessing gets among ten classes.
HUGE_OK, HUGE_BAD = 0.05, 0.2
# Fall of the mean loss from one eps to the next, as a share of the loss: a tenth is what random starts do; half is no search at all.
FALL_OK, FALL_BAD = 0.1, 0.5
LEAST_LOSS = 0.01  # nats: below it every image is right by 99 %, and what moves the mean is chance
# Images that only the black box breaks: a twentieth is what a short white-box attack misses; a one-sided sign test tells it from chance.
BLACK_OK, BLACK_P = 0.05, 0.05
# Accuracy that a longer attack takes beyond the reported one: a tenth is the price of a quick attack; a fifth is another result. The
# 95 % interval of the difference has to lie above: of 50 images, 8 are no more than a tenth for all that is known.
WEAK_OK, WEAK_BAD = 0.1, 0.2
# Images without gradient of the loss: a twentieth can be so confident that float32 has none; half of them leave an attack nothing to do.
ZERO_OK, ZERO_BAD = 0.05, 0.5
# Autograd's derivative over the true one: kinks move the median by less than a tenth; a factor of two is a gradient changed on purpose.
FACTOR_OK, FACTOR_BAD = 1.1, 2.0
ERROR_OK, ERROR_BAD = 0.1, 0.5  # their distance, by the same reasons
REACHED_OK, REACHED_BAD = 0.95, 0.5  # of the images that look again; a flat spot may leave out a few


def masking(
    model: GlimpseModel[Any],
    images: Float[Tensor, "B C H W"],
    labels: Int[Tensor, "B"],
    ids: Int[Tensor, "B"],
    settings: MaskingSettings | None = None,
    reported: Attack | None = None,
) -> Masking:
    """The verdict on attacks against `model` (in eval mode), from some images in [0, 1] that it mostly classifies correctly; 50 to 100 do.

    reported: the attack in Linf on pixels whose accuracy the verdict is to stand beside: it may be too weak where no gradient is masked.
    Shares are of these images; losses are in nats.
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
    eps = min(reversed(CURVE), key=lambda eps: abs(accuracy[eps] - 0.5))  # where both attacks have something to win
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
    """The highest loss [B] and the greatest success [B] at this eps."""
    eot = settings.eot if victim.model.stochastic else 1
    attack = APGDSettings.parse({"eps": eps, "steps": steps, "eot": eot}, owner="masking")
    ascent = Ascent(victim, random_start(victim.images, "Linf", eps, noise), cross_entropy, attack, 0)
    _, success, _ = ascent.run()
    return ascent.best.loss, success


def _black_box(victim: Victim, noise: Noise, settings: MaskingSettings, eps: float, white: Tensor) -> dict[str, Any]:
    """Paired counts of the images that one attack alone breaks."""
    eot = settings.eot if victim.model.stochastic else 1
    attack = Square(SquareSettings.parse({"eps": eps, "steps": settings.queries, "eot": eot}, owner="masking"))
    black = _broken(victim, attack.perturb(victim, noise), eot)
    only_black, only_white = int((black & ~white).sum()), int((white & ~black).sum())
    p = fair_coin_tail(only_white, only_white + only_black)
    share = only_black / len(victim)
    verdict: Verdict = "unreliable" if share > BLACK_OK and p < BLACK_P else "suspect" if share > BLACK_OK else "ok"
    return {"eps": eps, "queries": settings.queries, "only_black": only_black, "only_white": only_white, "p": p, "verdict": verdict}


def _reported(victim: Victim, noise: Noise, settings: MaskingSettings, reported: Attack, ids: Int[Tensor, "B"]) -> dict[str, Any]:
    """Paired counts of the images that the reported attack and APGD alone break, at the reported eps."""
    eps, eot = reported.settings.eps, settings.eot if victim.model.stochastic else 1
    weak = _broken(victim, reported.apply(victim.images, victim.labels, ids, victim.model), eot)
    strong = _ascent(victim, noise, settings, eps, settings.strong_steps)[1] >= 0.5
    only_stronger, only_reported = int((strong & ~weak).sum()), int((weak & ~strong).sum())
    counts = {"only_stronger": only_stronger, "only_reported": only_reported, **_gain(only_stronger, only_reported, len(victim))}
    return {"attack": reported.name, "eps": eps, "steps": settings.strong_steps, **counts}


def _gain(only_stronger: int, only_reported: int, n: int) -> dict[str, Any]:
    """The share of n images that the stronger attack breaks beyond the reported one, with its 95 % interval, and the verdict on it."""
    alone = np.arange(n)
    stronger, weaker = alone < only_stronger, (alone >= only_stronger) & (alone < only_stronger + only_reported)
    pair = paired("stronger", "reported", stronger, weaker, alone)
    verdict = _rising(pair.low, WEAK_OK, WEAK_BAD)
    return {"gain": pair.difference, "low": pair.low, "high": pair.high, "verdict": verdict}


def _broken(victim: Victim, images: Float[Tensor, "B C H W"], runs: int) -> Bool[Tensor, "B"]:
    """Wrong in at least half of so many runs that no attack has seen."""
    return torch.stack([victim.wrong(images, run) for run in range(-1, -1 - runs, -1)]).float().mean(0) >= 0.5


def _by_derivatives(victim: Victim, noise: Noise) -> dict[str, dict[str, Any]]:
    zero = vanishing(victim, noise, cross_entropy)
    checks: dict[str, dict[str, Any]] = {"loss_gradient": {"zero": zero, "verdict": _rising(zero, ZERO_OK, ZERO_BAD)}}
    try:
        twin = exact(victim)
    except RuntimeError as error:  # a plugin's model may insist on float32
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
        return "suspect"  # true gradients, but blind to the choices
    return "ok" if share >= REACHED_OK else "suspect" if share >= REACHED_BAD else "unreliable"


def _judged(found: Derivatives) -> dict[str, Any]:
    """Derivatives that nobody could resolve are no reason for trust."""
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
    """ok up to `ok`, unreliable above `bad`."""
    return "ok" if value <= ok else "suspect" if value <= bad else "unreliable"


def _worst(verdicts: Any) -> Verdict:
    return max(verdicts, key=_ORDER.index)
