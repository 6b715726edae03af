"""The driver of all models: training, evaluation, early exit, tracing and cost counting all call `rollout`."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from glimpsezoo.core.batched import Batched, gather
from glimpsezoo.core.computing import PhaseCalls, computed
from glimpsezoo.core.exits import ExitRule, Fixed
from glimpsezoo.core.macs import Charge, MacTable, Meter
from glimpsezoo.core.noise import Noise
from glimpsezoo.core.protocol import GlimpseModel, Phase, Policy, State
from glimpsezoo.core.regions import Decision
from glimpsezoo.core.symbolic import tensor_cache
from glimpsezoo.errors import GlimpseZooError

Choose = Callable[[Tensor, State, Decision], Decision]


@dataclass(frozen=True)
class Record:
    """What a rollout records in addition to the result."""

    every_step: bool = False
    """Classify at every step, not only where an exit rule or the last step needs it."""
    states: bool = False
    """Keep the state after every step. Training reads it; it costs memory."""
    meter: Meter | None = None
    """Charge every image with its MACs."""


@dataclass(frozen=True)
class Look:
    """One step of a rollout, for the b images that took it."""

    rows: Int[Tensor, "b"]
    """The places of the images in the batch."""
    decision: Decision
    """The regions of the step."""
    logits: Float[Tensor, "b classes"] | None
    """None if not every image was classified at this step."""
    state: State | None
    """The state after the step, if states are recorded."""


@dataclass(frozen=True)
class Trace:
    """What a rollout did."""

    logits: Float[Tensor, "B classes"]
    """At the last step of every image."""
    last_step: Int[Tensor, "B"]
    """The last step that every image took, from 1."""
    steps: int
    """T, the budget."""
    looks: tuple[Look, ...]
    """One entry per step that any image took, T at most."""
    macs: MacTable | None = None
    """The cost by phase and step, if a meter was given."""
    rule_reads: bool = False
    """Whether an exit rule read the logits of every step."""

    def logits_by_step(self) -> Float[Tensor, "B T classes"]:
        """The logits [B, T, classes] of runs stopped at each step: an image that finished earlier keeps its last logits.

        Raises `GlimpseZooError` if not every step was classified (`record=Record(every_step=True)`).
        """
        columns: list[Tensor] = []
        for look in self.looks:
            if look.logits is None:
                raise GlimpseZooError("logits of every step were not recorded: call rollout with record=Record(every_step=True)")
            everyone = len(look.rows) == len(self.logits)  # then the rows are in order
            columns.append(look.logits if everyone else columns[-1].index_put((look.rows,), look.logits))
        columns += columns[-1:] * (self.steps - len(columns))  # no image was left
        return torch.stack(columns, 1)

    def regions_by_step(self) -> Int[Tensor, "B T"]:
        """The number of regions of each image in each step."""
        none = torch.zeros_like(self.last_step)
        columns: list[Tensor] = []
        for look in self.looks:
            counts, everyone = look.decision.regions.counts(), len(look.rows) == len(none)  # then the rows are in order
            columns.append(counts if everyone else none.index_put((look.rows,), counts))
        columns += [none] * (self.steps - len(columns))  # no image was left
        return torch.stack(columns, 1)

    def total_macs(self) -> Int[Tensor, "B"]:
        """The MACs that ran for each image, of all phases and steps.

        Raises `GlimpseZooError` if they were not counted (`record=Record(meter=Meter(model))`).
        """
        if self.macs is None:
            raise GlimpseZooError("MACs were not counted: call rollout with record=Record(meter=Meter(model))")
        return torch.stack(list(self.macs.stopped_at(self.steps, classify_every_step=self.rule_reads).values())).sum(0)


def rollout(
    model: GlimpseModel[Any],
    images: Float[Tensor, "B C H W"],
    *,
    steps: int | None = None,
    exit_rule: ExitRule | None = None,
    policy: Policy | None = None,
    choose: Choose | None = None,
    noise: Noise | None = None,
    record: Record | None = None,
    compact: bool = True,
) -> Trace:
    """Run `model` on `images` [B, C, H, W] in [0, 1], step after step.

    steps: the most steps; by default the model's own number. exit_rule: lets images exit before the last step. policy: chooses where to
    look; by default the one that the model follows. choose: overrides any decision, including the first, as
    `choose(images, state, decision) -> decision`, where images are those still in the batch.
    noise: the images' source of randomness; by default with seed 0 and ids 0 to B - 1.
    compact: images that exit leave the batch, so that saved MACs save time. Otherwise they are computed to the end and their later
    steps are not recorded: the trace is the same and costs more.

    Raises `GlimpseZooError` for a budget out of range, for an empty batch, and for noise of a different number of images.

    >>> import glimpsezoo as gz
    >>> model = gz.create_model("cnn4", task=gz.Task((28, 28), 1, ("odd", "even")))
    >>> trace = gz.rollout(model, torch.zeros(3, 1, 28, 28))
    >>> tuple(trace.logits.shape), trace.last_step.tolist()
    ((3, 2), [1, 1, 1])
    """
    budget = budget_of(model, steps)
    if noise is None:
        noise = _numbered(len(images), images.device)
    if not len(images) or len(noise.keys) != len(images):
        raise GlimpseZooError(f"expected one or more images and noise for each of them, got {len(images)} and {len(noise.keys)}")
    with computed(model, images.device) as phases:
        chosen_by = ChosenBy(model, policy or model.follows, choose or _as_decided)
        run = Rollout(phases, chosen_by, budget, exit_rule or Fixed(), record or Record(), compact)
        return run(images, noise)


def budget_of(model: GlimpseModel[Any], steps: int | None) -> int:
    """The most steps of a run. Raises `GlimpseZooError` for more than the model has, and for less than one."""
    budget = model.steps if steps is None else steps
    if not 1 <= budget <= model.steps:
        raise GlimpseZooError(f"expected a budget of 1 to {model.steps} steps for this model, got {steps}")
    return budget


@tensor_cache(1024)
def _numbered(batch: int, device: torch.device) -> Noise:
    """The noise of images with the ids 0 to B - 1 under seed 0, kept because it costs as much as a small look."""
    return Noise.of(0, torch.arange(batch, device=device))


def _as_decided(images: Tensor, state: State, decision: Decision) -> Decision:
    return decision


@dataclass(frozen=True)
class Present(Batched):
    """The images that are in the batch now, and everything that belongs to them."""

    rows: Int[Tensor, "b"]
    """The places of the images in the original batch."""
    images: Float[Tensor, "b C H W"]
    state: State
    decision: Decision | None
    """That of the last step, or of the next one once it is made; None if the last one is no longer needed."""
    active: Bool[Tensor, "b"] | None = None
    """False for images that exited but stay in the batch; None if there are none, so that most runs need no mask."""
    logits: Float[Tensor, "b classes"] | None = None
    """Those of this step, if it was classified."""
    history: tuple[Tensor, ...] = ()
    """The logits of the steps that the exit rule reads."""

    @property
    def chosen(self) -> Decision:
        """The decision where there is one."""
        assert self.decision is not None
        return self.decision

    def only_active(self) -> Self:
        """Without the images that exited but stay in the batch."""
        return self if self.active is None else replace(self.select(indices(self.active)), active=None)


def indices(mask: Bool[Tensor, "b"]) -> Int[Tensor, "n"]:
    """The places of the images of `mask`."""
    return mask.nonzero().squeeze(1)


class Classified(NamedTuple):
    """Images that took their last step together."""

    index: Int[Tensor, "n"]
    """Their places in the batch, or in the stream, from 0."""
    logits: Float[Tensor, "n classes"]
    """After their last step."""
    last_step: int
    """The last step that they took, from 1."""


@dataclass(frozen=True)
class ChosenBy:
    """What makes the decisions of a rollout."""

    model: GlimpseModel[Any]
    policy: Policy
    choose: Choose = _as_decided
    """Overrides the policy."""

    def __call__(self, images: Tensor, state: State, own: Decision | None) -> Decision:
        """The decision for these images, where their model by itself would take `own`."""
        decision = self.choose(images, state, self.policy.decide(self.model, images, state, own))
        if decision.regions.batch != len(images):
            raise GlimpseZooError(f"expected a decision for {len(images)} images, got one for {decision.regions.batch}")
        return decision


@dataclass
class Rollout:
    """One rollout. `__call__` is the loop; the other methods are its parts, and each phase is charged where it runs."""

    model: GlimpseModel[Any] | PhaseCalls
    chosen_by: ChosenBy
    budget: int
    exit_rule: ExitRule
    record: Record = Record()
    compact: bool = True
    looks: list[Look] = field(default_factory=list)
    stopped: list[Classified] = field(default_factory=list)
    charges: list[Charge] = field(default_factory=list)

    def __call__(self, images: Tensor, noise: Noise) -> Trace:
        here: Present | None = self.start(images, noise, torch.arange(len(images), device=images.device))
        while here is not None:
            here = self.step(here)
        return self._trace()

    def start(self, images: Tensor, noise: Noise, rows: Tensor) -> Present:
        """The images before their first step."""
        state, own = self.model.start(images, noise)
        decision = self.chosen_by(images, state, own)
        if meter := self.record.meter:
            self.charges.append(Charge("start", 1, rows, meter.start(images, noise, self.chosen_by.policy)))
        return Present(rows, images, state, decision)

    def step(self, here: Present) -> Present | None:
        """One step of all images. Returns those that may take another one, without its decision; None if no image may."""
        if here.state.step:
            located = self._locate(here)
            if located is None:
                return None
            here = located
        step = here.state.step + 1
        here = self._sense_and_fuse(here, step)
        if step == self.budget or self.record.every_step or self.exit_rule.reads:
            here = self._classify(here)
        self._record(here)
        if step == self.budget:
            self._stop(here)
            return None
        return self._exit(here)

    def _sense_and_fuse(self, here: Present, step: int) -> Present:
        features = self.model.sense(here.images, here.state, here.chosen.regions)
        if meter := self.record.meter:
            self._charge("sense", step, here, meter.sense(step, here.images, here.state, here.chosen.regions))
            self._charge("fuse", step, here, meter.fuse(step, here.images, here.state, here.chosen, features))
        state = replace(self.model.fuse(here.state, here.chosen, features), step=step)
        return replace(here, state=state, logits=None)

    def _classify(self, here: Present) -> Present:
        logits = self.model.classify(here.state)
        if meter := self.record.meter:
            step = here.state.step
            self._charge("classify", step, here, meter.classify(step, here.images, here.state, here.chosen))
        return replace(here, logits=logits, history=(*here.history, logits) if self.exit_rule.reads else ())

    def _exit(self, here: Present) -> Present | None:
        """Stop the images that exit by the rule."""
        if not self.exit_rule.reads:
            return here
        mask = self.exit_rule.exits(torch.stack(here.history, 1))
        history = here.history[1:] if len(here.history) == self.exit_rule.window else here.history
        decision = here.decision if self.record.meter else None  # to gather it would cost as much as the state
        return self._leave(replace(here, history=history, decision=decision), mask, compact=self.compact)

    def _locate(self, here: Present) -> Present | None:
        """Ask where to look next. Images for which no region is chosen are finished, and leave the batch in any case."""
        policy = self.chosen_by.policy
        asked = policy.asks(self.chosen_by.model)
        own = self.model.locate(here.state) if asked else None
        decision = None if own is None and asked else self.chosen_by(here.images, here.state, own)
        if meter := self.record.meter:
            step = here.state.step
            self._charge("locate", step, here, meter.locate(step, here.images, here.state, here.chosen, policy))
        if decision is None:
            self._stop(here)
            return None
        if decision.regions.single:  # no image is finished
            return replace(here, decision=decision)
        return self._leave(here, decision.regions.counts() == 0, compact=True, following=decision)

    def _leave(self, here: Present, mask: Bool[Tensor, "b"], *, compact: bool, following: Decision | None = None) -> Present | None:
        """Stop the images of `mask`.

        Returns the batch with the decision that follows, without the stopped images if `compact`; None if no image is left.
        """
        rest = here if following is None else replace(here, decision=following)
        order = mask.argsort(stable=True)  # images that stay, then images that leave
        staying = len(mask) - int(mask.sum())  # the only synchronisation with the device
        if staying == len(mask):
            return rest
        if staying == 0:
            self._stop(here)
            return None
        if here.active is None:
            self._stop(here, order[staying:])
            return rest.select(order[:staying]) if compact else replace(rest, active=~mask)
        self._stop(here, indices(here.active & mask))
        active = here.active & ~mask
        if not active.any():
            return None
        return rest.select(order[:staying]) if compact else replace(rest, active=active)

    def _stop(self, here: Present, index: Int[Tensor, "n"] | None = None) -> None:
        """Record the last step of the images `index` of the batch (or of all that have not exited), classified now if they are not yet."""
        if index is None and here.active is not None:
            index = indices(here.active)
        if here.logits is None:
            here, index = self._classify(here if index is None else here.select(index)), None
        assert here.logits is not None
        rows, logits = (here.rows, here.logits) if index is None else gather((here.rows, here.logits), index)
        self.stopped.append(Classified(rows, logits, here.state.step))

    def _record(self, here: Present) -> None:
        here = here.only_active()
        self.looks.append(Look(here.rows, here.chosen, here.logits, here.state if self.record.states else None))

    def classified(self) -> tuple[Int[Tensor, "B"], Float[Tensor, "B classes"], Int[Tensor, "B"]]:
        """The place of every image, its logits and its last step, in the order in which the images stopped."""
        last = [torch.full_like(stop.index, stop.last_step) for stop in self.stopped]
        return torch.cat([stop.index for stop in self.stopped]), torch.cat([stop.logits for stop in self.stopped]), torch.cat(last)

    def _charge(self, phase: Phase, step: int, here: Present, macs: Int[Tensor, "b"] | int) -> None:
        rows = here.rows
        if here.active is not None:
            rows, macs = rows[here.active], macs if isinstance(macs, int) else macs[here.active]
        self.charges.append(Charge(phase, step, rows, macs))

    def _trace(self) -> Trace:
        rows, logits, last = self.classified()
        if len(self.stopped) > 1:  # otherwise the rows are in order
            order = rows.argsort()
            logits, last = logits[order], last[order]
        macs = MacTable.of(self.charges, last, self.budget) if self.record.meter else None
        return Trace(logits, last, self.budget, tuple(self.looks), macs, self.exit_rule.reads)
