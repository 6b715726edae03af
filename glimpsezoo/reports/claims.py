"""A paper's claims with our tests of them, and what the paper prints that the zoo has no row for."""

from collections.abc import Iterator
from dataclasses import dataclass

from glimpsezoo.measures.statistics import Effect
from glimpsezoo.zoo.papers import Claim, LeftOut, Side

RULES = """\
- *Better*: the first model is more accurate than the second. Reproduced if the interval of the difference is above zero, reversed if it is
  below, and otherwise not reproduced. *At least* is the same test against the number that is named.
- *No worse*: reproduced unless the interval is below zero, or below the margin that is named.
- *Cost*: reproduced if ours, rounded like the claim, does not exceed it.
- Differences are in points of top-1 accuracy, paired by image, with 95 % intervals that resample images (whole groups if several come from
  one source). p is one-sided: the probability of a difference of this sign by chance. Tests are not corrected for their number. No rows
  are kept under corruptions and attacks: these intervals are for unpaired images and have no p.
- *Seeds*: with several trainings of a card, each seed's difference is shown and the effect is their mean; from three seeds on, its interval
  also resamples the seeds, which is a rough bound for so few. A claim is not reproduced if one seed differs significantly in the other
  direction. Seeds are paired by number; if one side has one seed, it is compared with all seeds of the other, and the interval does not
  know how much that side's other seeds would differ.
- A test on other data or models than the paper's says so, and its verdict applies only to those. If the two sides were trained for
  different numbers of epochs, the remarks show both: a baseline that is still learning says little.
"""


@dataclass(frozen=True)
class JudgedClaim:
    """A claim and the outcome of its test."""

    claim: Claim
    effect: Effect | None = None
    """A difference of accuracies, as a share. For costs: the ratio that the claim is about, which is also both ends of its interval."""
    seeds: tuple[tuple[str, Effect], ...] = ()
    """The effect in every training, with its seed."""
    trainings: tuple[int, ...] = ()
    """How many trainings each side has: a side that has one is compared with all of the other's."""
    images: int | None = None
    """The number of images per training."""
    data: str = ""
    """The data set and split of these images."""
    epochs: tuple[str, ...] = ()
    """How long each side was trained."""
    missing: str = ""
    """Why there is no effect."""

    def verdict(self) -> str:
        """'reproduced', 'not reproduced', 'reversed' or 'not tested'. A test on other data or models than the paper's names them."""
        if self.effect is None:
            return "not tested"
        word = self._word(self.effect)
        return f"not tested; on {self.claim.instead}: {word}" if self.claim.instead else word

    def _word(self, effect: Effect) -> str:
        claim = self.claim
        if claim.test == "cost":
            return "reproduced" if _cheap_enough(claim, effect.value) else "not reproduced"
        if claim.test == "no worse":
            margin = claim.margin / 100
            against = effect.high < -margin or any(each.high < -margin for _, each in self.seeds)
            return "not reproduced" if against else "reproduced"
        if effect.high < 0:
            return "reversed" if all(each.low <= 0 for _, each in self.seeds) else "not reproduced"
        return "reproduced" if effect.low > 0 and all(each.high >= 0 for _, each in self.seeds) else "not reproduced"

    def test_text(self) -> str:
        """What is compared with what."""
        claim, sides = self.claim, [side_text(side) for side in self.claim.sides]
        if claim.test is None:
            return ""
        if claim.test == "at least":
            return f"{sides[0]}: over {claim.percent:g} %"
        what = {"better": "better than", "no worse": "no worse than", "cost": "cost, against"}[claim.test]
        margin = f" by more than {claim.margin:g}" if claim.margin else ""
        return f"{sides[0]} {what} {sides[1]}{margin}"

    def effect_text(self) -> str:
        effect = self.effect
        if effect is None:
            return ""
        if self.claim.test == "cost":
            return f"{effect.value:.2f} times" if self.claim.factor else f"{100 * effect.value:.1f} %"
        return f"{100 * effect.value:+.2f} ({100 * effect.low:+.2f} to {100 * effect.high:+.2f})"

    def p_text(self) -> str:
        p = self.effect.p if self.effect else None
        return "" if p is None else "≤ .0001" if p < 1.5e-4 else f"{p:.{2 if p < 0.1 else 1}g}".removeprefix("0")

    def seeds_text(self) -> str:
        if self.effect is None or self.claim.test == "cost":
            return ""
        if len(self.seeds) < 2:
            return "1 seed"
        once = min(self.trainings, default=0) == 1
        which = " against ".join(f"{n} seed{'s' * (n > 1)}" for n in self.trainings) if once else f"{len(self.seeds)} seeds"
        return f"{which}: {', '.join(f'{100 * each.value:+.2f}' for _, each in self.seeds)}"

    def numbers_text(self) -> str:
        """The test and its numbers in one line; '' if there was none."""
        p = f"p {text}" if (text := self.p_text()).startswith("≤") else f"p = {text}" if text else ""
        images = f"{self.images:,} images" if self.images else ""
        return ", ".join(filter(None, (self.test_text(), self.effect_text(), p, images, self.seeds_text()))) if self.effect else ""

    def remarks(self) -> str:
        """Why the claim was not tested, and caveats for the reader."""
        different = self.effect is not None and len(set(self.epochs)) > 1
        epochs = f"epochs {' against '.join(each or 'unknown' for each in self.epochs)}" if different else ""
        return "; ".join(filter(None, (self.missing, epochs, self.claim.note)))


def _cheap_enough(claim: Claim, ours: float) -> bool:
    """Whether our cost, rounded like the printed number, is as low: 7 times means 6.5 or more, 76 % means 76.5 % or less."""
    if claim.factor is not None:
        return ours >= claim.factor - _half_a_unit(claim.factor)
    assert claim.percent is not None
    return 100 * ours <= claim.percent + _half_a_unit(claim.percent)


def _half_a_unit(number: float) -> float:
    decimals = len(f"{number:g}".partition(".")[2])
    return 0.5 * 10**-decimals


def side_text(side: Side) -> str:
    """A card, where it stops and under which condition, in words.

    >>> side_text(Side(card="mgnet.tmnist", step=3))
    'mgnet.tmnist at look 3'
    """
    at = f" at look {side.step}" if side.step else ""
    early = f" exiting at confidence {side.confidence:g}" if side.confidence else ""
    steps = f", {side.attack_steps} steps" if side.attack_steps else ""
    under = " under corruptions" if side.corrupted else f" under {side.attack}{steps}" if side.attack else ""
    return f"{side.card}{at}{early}{under}"


HEADINGS = ("claim", "in the paper", "our test", "effect, points (95 %)", "p", "images", "seeds", "verdict", "remarks")


def claim_cells(judged: JudgedClaim) -> list[str]:
    """A claim's cells under `HEADINGS`."""
    claim = judged.claim
    place = f"{claim.place}: {claim.printed}" if claim.printed else claim.place
    images = f"{judged.images:,}, {judged.data}" if judged.images else ""
    words = (judged.test_text(), judged.effect_text(), judged.p_text(), images, judged.seeds_text(), judged.verdict(), judged.remarks())
    return [f"“{claim.quote}”", place, *words]


def left_out_lines(left_out: tuple[LeftOut, ...]) -> Iterator[str]:
    """A Markdown list of what the paper prints and the zoo has no row for."""
    if left_out:
        yield from ("### Printed, and not here", "")
        yield from (f"- {each.what}: {each.needs}." for each in left_out)
        yield ""
