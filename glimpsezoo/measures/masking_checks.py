"""The checks of gradient masking: for each, which images show a sign of it.

After Athalye, Carlini & Wagner, "Obfuscated gradients give a false sense of security", ICML 2018, section 3.1, and Carlini et al., "On
evaluating adversarial robustness", 2019, section 5. They ask about the model, not about an attack: the gradient attack that others are held
against is APGD on the margin, with the true gradient and with the one that takes the glimpses as given.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Self, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from glimpsezoo.conditions.attacks.apgd import Ascent
from glimpsezoo.conditions.attacks.ball import random_start
from glimpsezoo.conditions.attacks.looks import locates
from glimpsezoo.conditions.attacks.settings import APGDSettings, Path, SquareSettings
from glimpsezoo.conditions.attacks.square import Square
from glimpsezoo.conditions.attacks.victim import Victim, cross_entropy, margin_loss, probe
from glimpsezoo.conditions.attacks.worst_case import wrong_in
from glimpsezoo.core.noise import Noise
from glimpsezoo.core.regions import Decision
from glimpsezoo.errors import out_of_memory
from glimpsezoo.evaluation.memory import Parts
from glimpsezoo.measures.derivatives import errors, exact, inner_points, looks, margins, reached

CURVE = tuple(k / 255 for k in (4, 8, 16, 32))
HUGE = 0.5  # an eps that can turn every image into plain grey, so that nothing is left to recognise
EOT = 2  # runs per gradient of a stochastic model
STEPS = 10  # of each gradient attack of the curve
QUERIES = 100  # of Square
NEAR = 1 / 255  # length of the step that shows whether the gradient points anywhere
RANDOM = 4  # random steps of that length
WRONG = 0.5  # a derivative that is off by half: kinks shift it by less than a tenth, and a scaled gradient by more
SAME = 1e-3  # change of the logits, as a share of the largest, that rounding explains

T = TypeVar("T")


@dataclass(frozen=True)
class Sign:
    """What one check found."""

    shown: Bool[Tensor, "n"]
    """Which images show it."""
    limit: float
    """Masking is found if a larger share of them does."""
    of: Bool[Tensor, "B"] | None = None
    """The images that it can be asked of; None for all."""


@dataclass
class Victims:
    """Images that are attacked, their noise, and how many of them are worked on at a time."""

    victim: Victim
    noise: Noise
    parts: Parts

    def select(self, index: Int[Tensor, "n"]) -> Self:
        return replace(self, victim=self.victim.select(index), noise=self.noise.select(index))

    def each(self, do: Callable[[Victim, Noise], T]) -> list[T]:
        """What `do` makes of the parts, in order."""

        def part(rows: slice) -> T:
            index = torch.arange(rows.start, rows.stop, device=self.victim.images.device)
            return do(self.victim.select(index), self.noise.select(index))

        return [*self.parts.over(len(self.victim), part)]


def gradient(victim: Victim, noise: Noise) -> Sign:
    """The gradient of the cross entropy or of the margin is zero or not finite, although the margin changes nearby."""
    changes = margins(victim)(victim.images) != margins(victim)(inner_points(victim.images, noise))
    slopes = [probe(victim, victim.images, loss).gradient.flatten(1) for loss in (cross_entropy, margin_loss)]
    none = torch.stack([(each.abs().amax(1) == 0) | ~each.isfinite().all(1) for each in slopes]).any(0)
    return Sign(none & changes, 0.1)


def direction(victim: Victim, noise: Noise) -> Sign:
    """A small step along the gradient's signs lowers the margin no more than the best of a few random steps of that length.

    For a model with a locator, either of the two gradients that attacks use may do so.
    """
    here = margins(victim)(victim.images)

    def fall(way: Tensor) -> Tensor:
        return here - margins(victim)((victim.images + NEAR * way).clamp(0, 1))

    shape = victim.images.shape
    tried = [fall((noise.uniform(number, victim.images[0].numel()) - 0.5).sign().view(shape).to(here)) for number in range(RANDOM)]
    ways = [probe(replace(victim, path=path), victim.images, margin_loss).gradient.nan_to_num().sign() for path in _paths(victim)]
    led = torch.stack([fall(way) for way in ways]).amax(0)
    return Sign(~(led > torch.stack(tried).amax(0)), 0.4)


def _paths(victim: Victim) -> tuple[Path, ...]:
    return ("detached", "free") if locates(victim.model) else ("free",)


def randomness(victim: Victim, noise: Noise) -> Sign:
    """The logits of two runs differ although both look at the same places: something but the choice of glimpses is random.

    The runs have noise of their own also if the model does not declare that it draws any.
    """
    kept: list[Decision] = []
    first = _logits(victim, 0, kept)
    change = (_logits(victim, 1, kept) - first).abs().amax(1)
    return Sign(change > SAME * first.abs().amax(1), 0.1)


def _logits(victim: Victim, run: int, kept: list[Decision]) -> Float[Tensor, "B classes"]:
    """The logits of a run. kept: the decisions to take; filled by the first run."""
    steps = iter(list(kept))

    def choose(images: Tensor, state: object, decision: Decision) -> Decision:
        found = next(steps, decision)
        if found is decision:
            kept.append(decision)
        return found

    return replace(victim, noise=victim.noise.fork(run)).trace(victim.images, choose=choose).logits


def derivatives(victim: Victim, noise: Noise) -> Iterator[tuple[str, Sign]]:
    """In float64: autograd's derivatives of the margin and of the glimpses, and whether the gradient passes the locator.

    Nothing for a model that requires float32, and no derivative of the margin for one with a surrogate, which changes it on purpose.
    """
    try:
        twin = exact(victim)
    except RuntimeError as error:
        if out_of_memory(error):
            raise
        return
    points = inner_points(twin.images, noise)
    asked = {"looks": looks(twin)} if twin.model.surrogate is not None else {"margin": margins(twin), "looks": looks(twin)}
    for name, function in asked.items():
        if function is not None and (known := ~(found := errors(function, points, noise)).isnan()).any():
            yield name, Sign(~(found[known] <= WRONG), 0.1, known)
    if locates(twin.model):
        passes, again = reached(twin, points)
        if again.any():
            yield "locator", Sign(~passes[again], 0.9, again)


def attacks(victims: Victims) -> Iterator[tuple[str, Sign]]:
    """The gradient attack with growing eps; and at an eps where it breaks about half of the images, Square and a single step beside it."""
    broken = {
        eps: torch.cat(victims.each(lambda victim, noise, k=k, eps=eps: _by_gradients(victim, noise.fork(k), eps)))
        for k, eps in enumerate((*CURVE, HUGE))
    }
    yield "huge_eps", Sign(~broken[HUGE], 0.2)
    yield "larger_eps", Sign(torch.stack([few & ~more for few, more in pairwise(broken.values())]).any(0), 0.1)
    eps = min(reversed(CURVE), key=lambda eps: abs(broken[eps].float().mean().item() - 0.5))
    left = (~broken[eps]).nonzero().squeeze(1)
    for name, attack in (("black_box", _by_square), ("one_step", _by_one_step)):
        shown = torch.zeros_like(broken[eps])
        if len(left):
            shown[left] = torch.cat(victims.select(left).each(lambda victim, noise, attack=attack: attack(victim, noise, eps)))
        yield name, Sign(shown, 0.1)


def _by_square(victim: Victim, noise: Noise, eps: float) -> Bool[Tensor, "B"]:
    """Which images Square breaks, which reads no gradient."""
    square = Square(SquareSettings.parse({"eps": eps, "steps": QUERIES, "eot": _eot(victim)}, owner="masking"))
    return wrong_in(victim, square.perturb(victim, noise)) >= 0.5


def _by_one_step(victim: Victim, noise: Noise, eps: float) -> Bool[Tensor, "B"]:
    """Which images a single step along the signs of a gradient breaks."""
    found = [probe(victim, victim.images, loss, runs=_eot(victim)).gradient.nan_to_num() for loss in (cross_entropy, margin_loss)]
    stepped = [wrong_in(victim, (victim.images + eps * each.sign()).clamp(0, 1)) >= 0.5 for each in found]
    return torch.stack(stepped).any(0)


def _by_gradients(victim: Victim, noise: Noise, eps: float) -> Bool[Tensor, "B"]:
    """Which images the gradient attacks break, each in at least half of the runs of a stochastic model."""
    broken = torch.zeros(len(victim), dtype=torch.bool, device=victim.images.device)
    settings = APGDSettings.parse({"eps": eps, "steps": STEPS, "eot": _eot(victim)}, owner="masking")
    for place, path in enumerate(_paths(victim)):
        rows = (~broken).nonzero().squeeze(1)
        if not len(rows):
            break
        here = victim.select(rows)
        start = random_start(here.images, "Linf", eps, noise.select(rows).fork(place))
        ascent = Ascent(replace(here, path=path), start, margin_loss, settings, 0)
        found = ascent.run(until_wrong=not victim.model.stochastic)[0]
        broken[rows] = wrong_in(here, found) >= 0.5
    return broken


def _eot(victim: Victim) -> int:
    return EOT if victim.model.stochastic else 1


def signs(victims: Victims) -> dict[str, Sign]:
    """Every check by name. victims: that are classified correctly."""
    return {**_joined(victims.each(lambda victim, noise: (len(victim), dict(_alone(victim, noise))))), **dict(attacks(victims))}


def _alone(victim: Victim, noise: Noise) -> Iterator[tuple[str, Sign]]:
    """The checks that look at each image by itself."""
    yield "gradient", gradient(victim, noise)
    yield "direction", direction(victim, noise)
    yield "randomness", randomness(victim, noise)
    yield from derivatives(victim, noise)


def _joined(parts: Sequence[tuple[int, Mapping[str, Sign]]]) -> dict[str, Sign]:
    """The signs of all images from those of the parts: the number of images of each, and its signs. A part may lack a check."""
    found = {}
    for name in dict.fromkeys(name for _, signs in parts for name in signs):
        known = [signs[name] for _, signs in parts if name in signs]
        of = torch.cat([_of(signs.get(name), count) for count, signs in parts])
        found[name] = Sign(torch.cat([sign.shown for sign in known]), known[0].limit, of)
    return found


def _of(sign: Sign | None, count: int) -> Bool[Tensor, "B"]:
    """Which of the images a check was asked of."""
    if sign is None or sign.of is None:
        return torch.full((count,), sign is not None)
    return sign.of.cpu()
