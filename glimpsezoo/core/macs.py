"""Cost in MACs: one multiply-accumulate is one MAC, and FLOPs are twice the MACs.

The dispatched operations are counted, by the formulas of torch's flop counter and by ours (`formulas.py`), so dynamic control flow is
counted as it ran. A `Meter` counts each phase once per kind of work and charges each image with what it used: for 10,000 images, only a few
calls are counted. That the sums equal a count of the whole run is tested in `tests/test_cost.py`.
"""

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Int
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from glimpsezoo.core.batched import all_equal, gather
from glimpsezoo.core.formulas import FORMULAS, holds_no_products, moves, operation
from glimpsezoo.core.noise import Noise
from glimpsezoo.core.protocol import PHASES, GlimpseModel, Phase, Policy, State
from glimpsezoo.core.regions import Decision, Regions


@dataclass(frozen=True)
class Count:
    """The cost of a run."""

    macs: int
    uncounted: frozenset[str]
    """Names of arithmetic operations that ran and have no formula."""
    missing: frozenset[str] = frozenset()
    """Those of `uncounted` that may contain products. If there are any, `macs` is a lower bound."""


class _Watch(TorchDispatchMode):
    """Counts the operations that run, and collects the names of those that have no formula.

    Of torch's own operations, only those that return floating-point values are collected: index and mask arithmetic is not counted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.macs, self.uncounted, self.missing = 0, set[str](), set[str]()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Otherwise, torch's compiler is imported, which takes as long as importing torch. FlopCounterMode of torch imports it."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if isinstance(func, OpOverload) and func.namespace != "prim":
            with self:  # inference mode leaves operations whole that consist of others
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        if isinstance(func, OpOverload):
            self._note(func, result, args, kwargs)
        return result

    def _note(self, func: OpOverload, result: Any, args: Any, kwargs: Any) -> None:
        name = operation(func)
        if moves(func):
            return
        if func.overloadpacket in flop_registry:
            self.macs += flop_registry[func.overloadpacket](*args, **kwargs, out_val=result) // 2
        elif name in FORMULAS:
            self.macs += FORMULAS[name](result, *args, **kwargs)
        elif func.namespace != "aten" or any(map(_is_number, tree_leaves(result))):
            self.uncounted.add(name)
            makes_values = not any(isinstance(leaf, Tensor) for leaf in tree_leaves((args, kwargs)))  # from nothing, as `hann_window` does
            self.missing.update([] if makes_values or holds_no_products(func) else [name])


def _is_number(value: Any) -> bool:
    return isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())


@contextmanager
def _attention_in_the_open() -> Iterator[None]:
    """Switches off the fused path of nn.MultiheadAttention, which would count as zero MACs."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def count_macs(run: Callable[[], Any]) -> Count:
    """Run a function and count its MACs.

    >>> x = torch.ones(2, 3)
    >>> count_macs(lambda: x @ torch.ones(3, 5)).macs
    30
    """
    watch = _Watch()
    with _attention_in_the_open(), torch.no_grad(), watch:
        run()
    return Count(watch.macs, frozenset(watch.uncounted), frozenset(watch.missing))


@dataclass
class Meter:
    """Charges every image of a rollout with the MACs of the phases that it went through. One meter serves any number of batches.

    A phase's method returns the MACs of each image [B], or one number if they all cost the same. What a policy computes counts as locate,
    or as start for the first decision. policy: by default the one that the model follows.
    """

    model: GlimpseModel[Any]
    uncounted: set[str] = field(default_factory=set)
    """As in `Count`, for everything charged so far."""
    missing: set[str] = field(default_factory=set)
    """As in `Count`, for everything charged so far."""
    _known: dict[tuple[Any, ...], int] = field(default_factory=dict)

    def start(self, images: Tensor, noise: Noise, policy: Policy | None = None) -> Int[Tensor, "B"] | int:
        chosen_by = policy or self.model.follows

        def run(row: Tensor) -> None:
            chosen_by.decide(self.model, images[row], *self.model.start(images[row], noise.select(row)))

        return self._charge("start", 0, images, 0, run, chosen_by.name)

    def sense(self, step: int, images: Tensor, state: State, regions: Regions) -> Int[Tensor, "B"] | int:
        """Regions of the same level and step cost the same, so one of each level is counted; an image's regions are summed."""

        def run(position: Tensor) -> None:
            row = regions.image[position]
            region = regions.keep(torch.zeros_like(regions.image, dtype=torch.bool).index_fill(0, position, True)).select(row)
            self.model.sense(images[row], state.select(row), region)

        each = self._charge("sense", step, images, regions.level, run)
        if isinstance(each, int):
            return each if regions.single else each * regions.counts()
        return torch.zeros(regions.batch, dtype=torch.long, device=images.device).index_add(0, regions.image, each)

    def fuse(self, step: int, images: Tensor, state: State, decision: Decision, features: Any) -> Int[Tensor, "B"] | int:
        def run(row: Tensor) -> None:
            mine = (decision.regions.image == row).nonzero().squeeze(1)
            self.model.fuse(state.select(row), decision.select(row), gather(features, mine))

        return self._charge("fuse", step, images, self.model.work("fuse", state, decision), run)

    def classify(self, step: int, images: Tensor, state: State, decision: Decision) -> Int[Tensor, "B"] | int:
        work = self.model.work("classify", state, decision)
        return self._charge("classify", step, images, work, lambda row: self.model.classify(state.select(row)))

    def locate(self, step: int, images: Tensor, state: State, decision: Decision, policy: Policy | None = None) -> Int[Tensor, "B"] | int:
        work, chosen_by = self.model.work("locate", state, decision), policy or self.model.follows

        def run(row: Tensor) -> None:
            chosen_by.next_decision(self.model, images[row], state.select(row))

        return self._charge("locate", step, images, work, run, chosen_by.name)

    def _charge(
        self, phase: Phase, step: int, images: Tensor, work: Tensor | int, run: Callable[[Tensor], Any], policy: str = ""
    ) -> Tensor | int:
        """The MACs of each row of `work`, which is an image or a region. A kind of work that is not known yet is run once and counted."""
        shape = tuple(images.shape[1:])
        if isinstance(work, Tensor) and len(work) and all_equal(work):  # the usual case, without sorting
            work = int(work[0])
        if isinstance(work, int):
            return self._macs((phase, step, work, shape, policy), run, lambda: torch.zeros(1, dtype=torch.long, device=images.device))
        kinds, place = work.unique(return_inverse=True)
        macs = [
            self._macs((phase, step, kind, shape, policy), run, lambda i=i: (place == i).nonzero()[0])
            for i, kind in enumerate(kinds.tolist())
        ]
        return torch.tensor(macs, dtype=torch.long, device=work.device)[place]

    def _macs(self, key: tuple[Any, ...], run: Callable[[Tensor], Any], example: Callable[[], Tensor]) -> int:
        """What a kind of work costs: `run` on an `example` of it, if it is not known yet."""
        if key not in self._known:
            count = count_macs(lambda: run(example()))
            self._known[key] = count.macs
            self.uncounted |= count.uncounted
            self.missing |= count.missing
        return self._known[key]


_METERS: WeakKeyDictionary[GlimpseModel[Any], Meter] = WeakKeyDictionary()


def meter_of(model: GlimpseModel[Any]) -> Meter:
    """The meter of a model, the same for all its jobs: counting a phase takes as long as some batches."""
    proxy: Any = weakref.proxy(model)  # a meter that held its own key would keep it alive
    return _METERS.setdefault(model, Meter(proxy))


class Charge(NamedTuple):
    """The MACs that some images were charged for one phase."""

    phase: Phase
    step: int
    """From 1; `start` has no step, and 1 here."""
    rows: Int[Tensor, "b"]
    """The places of the images in the batch."""
    macs: Int[Tensor, "b"] | int
    """Per image, or one number that holds for each of them."""


@dataclass
class MacTable:
    """The MACs of every image of a batch by phase and step. Columns are steps 1 to T; steps that an image did not take are zero."""

    start: Int[Tensor, "B"]
    sense: Int[Tensor, "B T"]
    fuse: Int[Tensor, "B T"]
    classify: Int[Tensor, "B T"]
    locate: Int[Tensor, "B T"]
    """`locate` runs at the end of a step and chooses the regions of the next one."""
    last_step: Int[Tensor, "B"]
    """The last step that each image took."""

    @classmethod
    def of(cls, charges: Sequence[Charge], last_step: Int[Tensor, "B"], steps: int) -> "MacTable":
        """The table of a rollout of `steps` steps. What costs the same for all images is written at once, not by an operation each."""
        everyone = {phase: [0] * steps for phase in PHASES}
        others: list[Charge] = []
        for charge in charges:
            if isinstance(charge.macs, int) and len(charge.rows) == len(last_step):
                everyone[charge.phase][charge.step - 1] = charge.macs
            else:
                others.append(charge)
        table = torch.tensor(list(everyone.values()), device=last_step.device)[:, None].repeat(1, len(last_step), 1)  # [5, B, T]
        columns = dict(zip(PHASES, table.unbind(), strict=True))
        for phase, step, rows, macs in others:
            columns[phase][rows, step - 1] = macs
        return cls(start=columns.pop("start")[:, 0], **columns, last_step=last_step)

    @classmethod
    def concatenate(cls, tables: Sequence["MacTable"]) -> "MacTable":
        """The table of the images of several batches (at least one), in order."""
        return cls(*(torch.cat([getattr(table, column.name) for table in tables]) for column in fields(cls)))

    def stopped_at(self, step: Int[Tensor, "B"] | int, *, classify_every_step: bool = False) -> dict[Phase, Int[Tensor, "B"]]:
        """MACs by phase of a run that is stopped at `step` (one per image [B], or one for all), by its budget or by a rule.

        An image that finished by itself earlier is counted up to its end, including the `locate` that chose no region: pass the budget T
        for the cost of the run as it was. Classify runs at the last step, or at every step if a rule reads every step. So where
        classify merges features, the cost at a step is not a prefix sum: only the classifications that ran are counted.
        """
        steps = torch.arange(1, self.sense.shape[1] + 1, device=self.sense.device)
        stop = torch.as_tensor(step, device=self.sense.device).expand(len(self.start))[:, None]  # [B, 1]
        taken = steps <= stop  # [B, T]
        read = taken if classify_every_step else steps == torch.minimum(stop, self.last_step[:, None])
        return {
            "start": self.start,
            "sense": (self.sense * taken).sum(1),
            "fuse": (self.fuse * taken).sum(1),
            "locate": (self.locate * (steps < stop)).sum(1),
            "classify": (self.classify * read).sum(1),
        }

    def by_step(self) -> Int[Tensor, "B T"]:
        """MACs of runs that are stopped at each step by their budget: the sums of `stopped_at(1)`, `stopped_at(2)`, ..., all at once."""
        last = torch.minimum(torch.arange(1, self.sense.shape[1] + 1, device=self.sense.device), self.last_step[:, None])  # [B, T]
        looked = (self.sense + self.fuse + self.locate).cumsum(1) - self.locate
        return self.start[:, None] + looked + self.classify.gather(1, last - 1)
