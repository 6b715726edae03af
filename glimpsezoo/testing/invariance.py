"""Rules that compare rollouts: what an image gets follows from it, its noise and the weights, and from nothing around it."""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from glimpsezoo.driver import Record, rollout
from glimpsezoo.exits import ExitRule
from glimpsezoo.testing.case import TOLERANCE, Case, Outcome, Run, difference

SEEDS = (1, 2, 3)  # other than the case's own


def _same(problem: str, *pairs: tuple[Run, Run]) -> Outcome:
    """The worst of these pairs, and `problem` if it is more than rounding."""
    found = [one.differ(other) for one, other in pairs]
    numbers = {name: max(pair[name] for pair in found) for name in found[0]}
    return Outcome(numbers, "" if numbers["logits differ by"] <= TOLERANCE and not numbers["looks elsewhere"] else problem)


def determinism(case: Case) -> Outcome:
    """The same noise gives the same run, and another noise another run exactly where `stochastic` says so.

    What is random must follow from the images' noise: torch's own generator is set differently before each run.
    """
    own = case.run()
    torch.manual_seed(1)
    numbers, problem, _ = _same(
        "two runs with the same noise differ: draw from the images' noise, not from torch's generator", (own, case.run())
    )
    others = [case.run(seed=seed) for seed in SEEDS]
    changed = sum((own.elsewhere(run) > 0) | (own.logits != run.logits).flatten(1).any(1) for run in others)
    images = int((torch.as_tensor(changed) > 0).sum())
    numbers = {**numbers, "images that other noise changes": images, "stochastic": case.model.stochastic}
    if not problem and (images > 0) != case.model.stochastic:
        problem = f"stochastic is {case.model.stochastic}, but other noise changes {'some' if images else 'no'} images: declare what it is"
    return Outcome(numbers, problem)


def batch(case: Case) -> Outcome:
    """An image gets the same in a large batch, in a small one and alone."""
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
            continue  # that a batch of one runs at all is a rule of its own
        if few.logits.shape[1:] == whole.logits.shape[1:]:
            pairs.append((few, whole.only(rows)))
    if not pairs:
        return Outcome({}, skipped="one image alone makes no two batches")
    return _same("the first images of a batch get something else without the others: let no image see another", *pairs)


def order(case: Case) -> Outcome:
    """The order of a batch changes nothing."""
    mixed = case.noise(1).keys.argsort()
    backwards = torch.arange(len(case.images), device=case.images.device).flip(0)
    problem = "images get something else in another order: use no image's place in the batch"
    return _same(problem, *((case.run(), case.run(rows)) for rows in (backwards, mixed)))


class _Staggered(ExitRule):
    """Lets images go one part after the other, by how sure the model was at its first look."""

    name = "staggered"

    def __init__(self, thresholds: Float[Tensor, "steps"]) -> None:
        self.thresholds = thresholds

    @classmethod
    def of(cls, first: Float[Tensor, "n classes"], steps: int) -> "_Staggered":
        """A rule under which equal parts of the images take 1, 2, ... `steps` looks. first: their logits at the first look."""
        sure = cls.sure(first).sort().values
        shares = torch.arange(steps - 1, 0, -1, device=first.device) * len(sure) // steps
        return cls(sure[shares])

    @staticmethod
    def sure(first: Float[Tensor, "n classes"]) -> Float[Tensor, "n"]:
        return first.amax(-1) - first.mean(-1)

    def exits(self, logits: Float[Tensor, "B T C"]) -> Bool[Tensor, "B"]:
        step = logits.shape[1]
        if step > len(self.thresholds):
            return torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
        return self.sure(logits[:, 0]) >= self.thresholds[step - 1]


def compaction(case: Case) -> Outcome:
    """Images that exit and leave the batch change nothing, for themselves and for those that stay."""
    if case.model.steps == 1:
        return Outcome({}, skipped="a model of one look has no exits")
    free = case.run()
    rule = _Staggered.of(free.logits[:, 0], case.model.steps)
    left, stayed = case.run(exit_rule=rule), case.run(exit_rule=rule, compact=False)
    at_exit = free.logits[torch.arange(len(free.image)), left.last_step - 1][:, None]
    ends = replace(left, logits=left.logits[:, -1:], places=()), replace(free, logits=at_exit, places=())
    numbers, problem, _ = _same(
        "images that leave the batch change the others: keep all that a step needs in the state", (left, stayed), ends
    )
    return Outcome({"images that exit early": int((left.last_step < case.model.steps).sum()), **numbers}, problem)


def gather(case: Case) -> Outcome:
    """A gathered state, repeats included, goes on as its images do."""
    look = rollout(case.model, case.images, noise=case.noise(), steps=1, record=Record(states=True)).looks[0]
    assert look.state is not None  # it was asked for
    index = torch.arange(len(case.images), device=case.images.device).flip(0).repeat_interleave(2)[1:]
    gathered = look.state.select(index)
    apart = difference(case.model.classify(gathered), case.model.classify(look.state)[index])
    elsewhere = 0.0
    if case.model.steps > 1:
        mine, whole = case.model.locate(gathered), case.model.locate(look.state)
        if mine is not None and whole is not None:
            a, b = mine.regions, whole.select(index).regions
            same = torch.equal(a.image, b.image) and torch.equal(a.level, b.level)
            elsewhere = difference(torch.cat([a.centre, a.scale[:, None]], 1), torch.cat([b.centre, b.scale[:, None]], 1)) if same else 1.0
    problem = "select(index) of the state gives another state: override it where tensors do not lead with the batch"
    numbers = {"logits differ by": apart, "regions differ by": elsewhere}
    return Outcome(numbers, problem if max(numbers.values()) > TOLERANCE else "")


def prefix(case: Case) -> Outcome:
    """The first steps of a long run are the steps of a short one, classified on the way or not."""
    whole = case.run()
    pairs = []
    for steps in range(1, case.model.steps + 1):
        short = case.run(steps=steps, every_step=False)
        last_step = whole.last_step.clamp(max=steps)
        pairs.append((short, Run(whole.image, whole.logits[:, steps - 1 : steps], last_step, whole.places[:steps])))
    return _same("a run of fewer steps is no beginning of a longer one: let a step depend on what came before it alone", *pairs)
