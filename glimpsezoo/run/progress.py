"""How far a run is, in expected seconds of work: labels and numbers for whoever shows them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from glimpsezoo.evaluation.plan import Plan
from glimpsezoo.run.portions import Portion

OnProgress = Callable[[str, float, float], None]  # label, expected seconds until now, expected seconds in all


@dataclass
class RunProgress:
    """The progress of portions that are done one after another, or side by side."""

    plan: Plan
    seconds: Sequence[float]
    """Expected seconds of each piece of the plan."""
    names: Sequence[str]
    """Of the models."""
    report: OnProgress
    passed: float = 0.0
    """Expected seconds of the finished portions."""

    def on_images(self, place: int, images: int) -> None:
        """So many images of a piece are finished in the portion in hand."""
        planned = self.plan[place][1]
        self.report(self._label(place), self.passed + self.seconds[place] * images / max(1, planned.images), sum(self.seconds))

    def on_portion(self, portion: Portion) -> None:
        """A portion is done."""
        for place in portion.pieces:
            images = self.plan[place][1].images if portion.span is None else portion.span[1] - portion.span[0]
            self.passed += self.seconds[place] * images / max(1, self.plan[place][1].images)
        self.report(self._label(portion.pieces[-1]), self.passed, sum(self.seconds))

    def _label(self, place: int) -> str:
        planned = self.plan[place][1]
        return f"{self.names[planned.index]}: {planned.label}"
