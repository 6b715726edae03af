"""Rules that compare rollouts: outputs are a function of the image, its noise and the weights, and of nothing else."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from glimpsezoo.core.exits import ExitRule
from glimpsezoo.core.protocol import State
from glimpsezoo.core.regions import Decision
from glimpsezoo.core.rollout import Look, Record, rollout
from glimpsezoo.core.rounding import Tolerance, region_table
from glimpsezoo.testing.case import Case, RuleResult
from glimpsezoo.testing.runs import ComparedRollout

SEEDS = (1, 2, 3)  # other than the case's own


def same(case: Case, problem: str, pairs: Callable[[Case], Sequence[tuple[ComparedRollout, ComparedRollout]]]) -> RuleResult:
    """Report `problem` if a pair of runs differs by more than rounding explains.

    The pairs are compared for the case and for its twin in double precision, where rounding is so small that it hides hardly any fault.
    """
    runs, exact = pairs(case), case.exact
    if exact is None:
        return RuleResult(
            {}, skipped="the effect of rounding is measured in double precision, in which the model does not run: see float64"
        )
    own, twin = _compared(runs, case.tolerance), _compared(pairs(exact), exact.tolerance)
    numbers = {**own, "of the tolerance in float64": twin["of the tolerance"], "images at ties": len(case.images) - exact.tolerance.telling}
    if any(found["of the tolerance"] > 1 or found["looks elsewhere"] for found in (own, twin)):
        return RuleResult(numbers, problem)
    return RuleResult(
        numbers, skipped="" if exact.tolerance.telling else "rounding decides the outputs of every image, even in double precision"
    )


def _compared(pairs: Sequence[tuple[ComparedRollout, ComparedRollout]], allowed: Tolerance) -> dict[str, float | int]:
    """The largest differences over all pairs."""
    found = [
        {
            "of the tolerance": one.excess(other, allowed),
            "looks elsewhere": int(one.elsewhere(other, allowed).sum()),
            "predictions changed": one.changed(other),
        }
        for one, other in pairs
    ]
    return {name: max(each[name] for each in found) for name in found[0]}


def determinism(case: Case) -> RuleResult:
    """The same noise gives the same run; other noise gives another run if and only if the model is `stochastic`.

    Randomness must derive from the images' noise: torch's generator is seeded differently before each run.
    """
    problem = "two runs with the same noise differ: draw from the images' noise, not from torch's generator"
    found = same(case, problem, _twice)
    own = case.run()
    images = int(torch.stack([(own.logits != case.run(seed=seed).logits).flatten(1).any(1) for seed in SEEDS]).any(0).sum())
    found = found._replace(numbers={**found.numbers, "images that other noise changes": images, "stochastic": case.model.stochastic})
    if found.problem or (images > 0) == case.model.stochastic:
        return found
    problem = f"stochastic is {case.model.stochastic}, but other noise changes {'some' if images else 'no'} images: declare it correctly"
    return found._replace(problem=problem)


def _twice(case: Case) -> list[tuple[ComparedRollout, ComparedRollout]]:
    own = case.run()
    torch.manual_seed(1)
    return [(own, case.run())]


def batch(case: Case) -> RuleResult:
    """An image has the same outputs in a large batch, in a small one and alone."""
    if not _smaller(case):
        return RuleResult({}, skipped="a single image cannot be split into batches")
    return same(case, "the first images of a batch have other outputs without the rest: let no image see another", _smaller)


def _smaller(case: Case) -> list[tuple[ComparedRollout, ComparedRollout]]:
    """Runs of the first images in smaller batches, and in the whole batch."""
    whole = case.run()
    sizes = [size for size in (1, len(case.images) // 2) if 0 < size < len(case.images)]
    pairs = []
    for size in sizes:
        rows = torch.arange(size, device=case.images.device)
        try:
            few = case.run(rows)
        except Exception:
            if size > 1:
                raise
            continue  # another rule checks whether a batch of one runs
        if few.logits.shape[1:] == whole.logits.shape[1:]:
            pairs.append((few, whole.only(rows)))
    return pairs


def order(case: Case) -> RuleResult:
    """Outputs do not depend on the order of a batch."""
    mixed = case.noise(1).keys.argsort()
    backwards = torch.arange(len(case.images), device=case.images.device).flip(0)
    problem = "images have other outputs in another order: do not use an image's place in the batch"
    return same(case, problem, lambda own: [(own.run(), own.run(rows)) for rows in (backwards, mixed)])


class _Staggered(ExitRule):
    """Lets equal parts of the images exit at each step, by the model's certainty in the first step."""

    name = "staggered"

    def __init__(self, thresholds: Float[Tensor, "steps"]) -> None:
        self.thresholds = thresholds

    @classmethod
    def of(cls, first: Float[Tensor, "n classes"], steps: int) -> "_Staggered":
        """A rule under which equal parts of the images take 1, 2, ..., `steps` steps, as far as there are so many images.

        first: the logits of the first step.
        """
        sure = cls.sure(first).sort().values
        shares = (torch.arange(steps - 1, 0, -1, device=first.device) * len(sure) // steps).clamp(min=1)
        return cls((sure[shares] + sure[shares - 1]) / 2)  # midway, so that rounding changes no exit

    @staticmethod
    def sure(first: Float[Tensor, "n classes"]) -> Float[Tensor, "n"]:
        return first.amax(-1) - first.mean(-1)

    def exits(self, logits: Float[Tensor, "B T C"]) -> Bool[Tensor, "B"]:
        step = logits.shape[1]
        if step > len(self.thresholds):
            return torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
        return self.sure(logits[:, 0]) >= self.thresholds[step - 1]


def compaction(case: Case) -> RuleResult:
    """Outputs do not change when images exit and leave the batch, neither theirs nor those of the images that stay."""
    if case.model.steps == 1:
        return RuleResult({}, skipped="a model of one step has no exits")
    problem = "images that leave the batch change the others: keep everything that a step needs in the state"
    found = same(case, problem, _leaving)
    early = int((case.run(exit_rule=_staggered(case)).last_step < case.model.steps).sum())
    return found._replace(numbers={"images that exit early": early, **found.numbers})


def _staggered(case: Case) -> _Staggered:
    return _Staggered.of(case.run(steps=1).logits[:, 0], case.model.steps)


def _leaving(case: Case) -> list[tuple[ComparedRollout, ComparedRollout]]:
    """Runs in which exited images leave the batch, stay in it, or do not exit."""
    free, rule = case.run(), _staggered(case)
    left, stayed = case.run(exit_rule=rule), case.run(exit_rule=rule, compact=False)
    at_exit = free.logits[torch.arange(len(free.image)), left.last_step - 1][:, None]
    ends = [
        replace(run, logits=logits, steps=left.last_step[:, None], places=())
        for run, logits in ((left, left.logits[:, -1:]), (free, at_exit))
    ]
    return [(left, stayed), (ends[0], ends[1])]


def gather(case: Case) -> RuleResult:
    """A gathered state, with repeats, has the same outputs as the state of its images."""
    return same(
        case, "select(index) of the state returns another state: override it for tensors whose first dimension is not the batch", _gathered
    )


def _gathered(case: Case) -> list[tuple[ComparedRollout, ComparedRollout]]:
    """The outputs for gathered states of the first step, and the outputs for the whole state at the same rows."""
    rows = torch.arange(len(case.images), device=case.images.device)
    index = rows.flip(0).repeat_interleave(2)[1:]
    whole = _first_state(case)
    return [(_outputs(case, whole.select(index), index), _outputs(case, whole, rows, index))]


def join(case: Case) -> RuleResult:
    """A state that is taken apart and joined again has the same outputs as before."""
    return same(case, "join of the states is another state: override it for tensors whose first dimension is not the batch", _joined)


def _joined(case: Case) -> list[tuple[ComparedRollout, ComparedRollout]]:
    """The outputs for a state of the first step that was taken apart and joined, and the outputs for the state as it was."""
    rows = torch.arange(len(case.images), device=case.images.device)
    whole = _first_state(case)
    joined = type(whole).join([whole.select(rows[:1]), whole.select(rows[1:])])
    return [(_outputs(case, joined, rows), _outputs(case, whole, rows))]


def _first_state(case: Case) -> State:
    """After the first step of all images."""
    (look,) = rollout(case.model, case.images, noise=case.noise(), steps=1, record=Record(states=True)).looks
    assert look.state is not None  # because states are recorded
    return look.state


def _outputs(case: Case, state: State, numbers: Int[Tensor, "n"], index: Int[Tensor, "m"] | None = None) -> ComparedRollout:
    """What a model makes of a state of the images `numbers`: logits, and where it looks next. index: the rows to compare, if not all."""
    model = case.model
    logits, decision = model.classify(state), None
    if model.steps > 1:
        decision = model.follows.next_decision(model, case.images[numbers], state)
    if index is not None:
        numbers, logits, decision = numbers[index], logits[index], decision and decision.select(index)
    ones = torch.ones_like(numbers)
    return ComparedRollout(numbers, logits[:, None], ones[:, None], ones, _second(decision, numbers))


def _second(decision: Decision | None, numbers: Tensor) -> tuple[Tensor, ...]:
    """The places of the second step for the images `numbers`, as in `ComparedRollout`."""
    if decision is None:
        return ()
    rows = torch.arange(len(numbers), device=numbers.device)
    second = region_table(Look(rows, decision, logits=None, state=None), numbers)
    return second[:0], second


def prefix(case: Case) -> RuleResult:
    """The first steps of a long run are the steps of a short one, whether or not every step is classified."""
    problem = "a run of fewer steps differs from the beginning of a longer one: let a step depend only on earlier steps"
    return same(case, problem, _prefixes)


def _prefixes(case: Case) -> list[tuple[ComparedRollout, ComparedRollout]]:
    whole = case.run()
    return [(case.run(steps=steps, every_step=False), whole.until(steps)) for steps in range(1, case.model.steps + 1)]
