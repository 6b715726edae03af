"""The one driver of every model: training, evaluation, early exit, tracing and cost counting all go through `rollout`."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from glimpsezoo.batched import Batched
from glimpsezoo.cost import MacTable, Meter
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.exits import ExitRule, Fixed
from glimpsezoo.noise import Noise
from glimpsezoo.protocol import GlimpseModel, Phase, State
from glimpsezoo.regions import Decision

Choose = Callable[[Tensor, State, Decision], Decision]


@dataclass(frozen=True)
class Record:
    """What to write down beside the result.

    every_step: classify after every look, not only where a rule or the last step reads it.
    states: keep the state after every look (training reads it; costs memory).
    meter: charge every image with its MACs.
    """

    every_step: bool = False
    states: bool = False
    meter: Meter | None = None


@dataclass(frozen=True)
class Look:
    """One step of a rollout, for the images that took it.

    rows: [b] their places in the batch. decision: what was looked at. logits: [b, classes] if every image was classified here.
    state: what was known after the look, if states are recorded.
    """

    rows: Int[Tensor, "b"]
    decision: Decision
    logits: Float[Tensor, "b classes"] | None
    state: State | None


@dataclass(frozen=True)
class Trace:
    """What a rollout did.

    logits: [B, classes] at every image's last look. last_step: [B], 1 = the first look.
    steps: T, the budget. looks: one entry a step that any image took, T at most.
    macs: the cost by phase and step if a meter was given. rule_reads: whether an exit rule read every step.
    """

    logits: Float[Tensor, "B classes"]
    last_step: Int[Tensor, "B"]
    steps: int
    looks: tuple[Look, ...]
    macs: MacTable | None = None
    rule_reads: bool = False

    def logits_by_step(self) -> Float[Tensor, "B T classes"]:
        """Logits [B, T, classes] of runs stopped at each step: an image that finished earlier keeps its last ones.

        Raises `GlimpseZooError` if the steps were not all classified (`record=Record(every_step=True)`).
        """
        columns: list[Tensor] = []
        for look in self.looks:
            if look.logits is None:
                raise GlimpseZooError("logits of every step were not recorded: call rollout with record=Record(every_step=True)")
            whole = columns[-1] if columns else torch.zeros_like(self.logits)
            columns.append(whole.index_put((look.rows,), look.logits))
        columns += columns[-1:] * (self.steps - len(columns))  # nobody was left to look
        return torch.stack(columns, 1)

    def regions_by_step(self) -> Int[Tensor, "B T"]:
        """How many regions each image looked at in each step."""
        table = torch.zeros(len(self.logits), self.steps, dtype=torch.long, device=self.logits.device)
        for step, look in enumerate(self.looks):
            table[look.rows, step] = look.decision.regions.counts()
        return table


def rollout(
    model: GlimpseModel[Any],
    images: Float[Tensor, "B C H W"],
    *,
    steps: int | None = None,
    exit_rule: ExitRule | None = None,
    choose: Choose | None = None,
    noise: Noise | None = None,
    record: Record | None = None,
    compact: bool = True,
) -> Trace:
    """Let `model` look at `images` [B, C, H, W] in [0, 1], step after step.

    steps: the most looks (the model's own number by default). exit_rule: ends an image's looking early. choose: overrides any
    decision, the first one too, as `choose(images, state, decision) -> decision`; the images are those still in the batch.
    noise: the images' randomness (seed 0 and ids 0..B-1 by default).
    compact: images that exit leave the batch, so that saved MACs are saved time; without it, they are computed on to the end and
    their later looks are not recorded: the same trace, dearer.

    Raises `GlimpseZooError` for a budget out of range, for no images, and for noise of another number of images.

    >>> import glimpsezoo as gz
    >>> model = gz.create_model("cnn4", task=gz.Task((28, 28), 1, ("odd", "even")))
    >>> trace = gz.rollout(model, torch.zeros(3, 1, 28, 28))
    >>> tuple(trace.logits.shape), trace.last_step.tolist()
    ((3, 2), [1, 1, 1])
    """
    budget = model.steps if steps is None else steps
    if not 1 <= budget <= model.steps:
        raise GlimpseZooError(f"expected a budget of 1 to {model.steps} steps for this model, got {steps}")
    if noise is None:
        noise = Noise.of(0, torch.arange(len(images), device=images.device))
    if not len(images) or len(noise.keys) != len(images):
        raise GlimpseZooError(f"expected one or more images and noise for each of them, got {len(images)} and {len(noise.keys)}")
    run = _Run(model, budget, exit_rule or Fixed(), choose or _as_decided, record or Record(), compact)
    return run(images, noise)


def _as_decided(images: Tensor, state: State, decision: Decision) -> Decision:
    return decision


@dataclass(frozen=True)
class _Present(Batched):
    """The images that are in the batch now, and all that belongs to them.

    rows: their places in the original batch. looking: false for images that exited but stay; None while all that are here look,
    which spares the usual run every mask. logits: of this step, if it was classified. history: the logits of all steps so far, if
    the exit rule reads them.
    """

    rows: Int[Tensor, "b"]
    images: Float[Tensor, "b C H W"]
    state: State
    decision: Decision
    looking: Bool[Tensor, "b"] | None = None
    logits: Float[Tensor, "b classes"] | None = None
    history: tuple[Tensor, ...] = ()

    def where(self, mask: Bool[Tensor, "b"]) -> Self:
        return self.select(mask.nonzero().squeeze(1))

    def lookers(self) -> Self:
        """Without the images that exited but stayed."""
        return self if self.looking is None else replace(self.where(self.looking), looking=None)


class _Last(NamedTuple):
    """Images at their last look."""

    rows: Int[Tensor, "b"]
    logits: Float[Tensor, "b classes"]
    step: int


@dataclass
class _Run:
    """One rollout under way. `__call__` is the loop; the other methods are its phases, each charged where it runs."""

    model: GlimpseModel[Any]
    budget: int
    exit_rule: ExitRule
    choose: Choose
    record: Record
    compact: bool
    looks: list[Look] = field(default_factory=list)
    stopped: list[_Last] = field(default_factory=list)
    macs: MacTable | None = None

    def __call__(self, images: Tensor, noise: Noise) -> Trace:
        here = self._start(images, noise)
        for step in range(1, self.budget + 1):
            here = self._look(here, step)
            if step == self.budget or self.record.every_step or self.exit_rule.reads:
                here = self._classify(here)
            self._write_down(here)
            if step == self.budget:
                self._stop(here)
                break
            here = self._exit(here)
            if here is None:
                break
            here = self._locate(here)
            if here is None:
                break
        return self._trace()

    def _start(self, images: Tensor, noise: Noise) -> _Present:
        state, decision = self.model.start(images, noise)
        if meter := self.record.meter:
            self.macs = MacTable.empty(len(images), self.budget, images.device)
            self.macs.start[:] = meter.start(images, noise)
        rows = torch.arange(len(images), device=images.device)
        return _Present(rows, images, state, self._chosen(images, state, decision))

    def _look(self, here: _Present, step: int) -> _Present:
        """Sense the regions and fuse what was seen."""
        features = self.model.sense(here.images, here.state, here.decision.regions)
        if meter := self.record.meter:
            self._charge("sense", step, here, meter.sense(step, here.images, here.state, here.decision.regions))
            self._charge("fuse", step, here, meter.fuse(step, here.images, here.state, here.decision, features))
        state = replace(self.model.fuse(here.state, here.decision, features), step=step)
        return replace(here, state=state, logits=None)

    def _classify(self, here: _Present) -> _Present:
        logits = self.model.classify(here.state)
        if meter := self.record.meter:
            step = here.state.step
            self._charge("classify", step, here, meter.classify(step, here.images, here.state, here.decision))
        return replace(here, logits=logits, history=(*here.history, logits) if self.exit_rule.reads else ())

    def _exit(self, here: _Present) -> _Present | None:
        """Let the images go that the rule names."""
        if not self.exit_rule.reads:
            return here
        return self._leave(here, self.exit_rule.exits(torch.stack(here.history, 1)), gather=self.compact)

    def _locate(self, here: _Present) -> _Present | None:
        """Ask where to look next. Images for which nothing is chosen are finished, and leave the batch in any case."""
        decision = self.model.locate(here.state)
        if meter := self.record.meter:
            step = here.state.step
            self._charge("locate", step, here, meter.locate(step, here.images, here.state, here.decision))
        if decision is None:
            self._stop(here)
            return None
        decision = self._chosen(here.images, here.state, decision)
        return self._leave(here, decision.regions.counts() == 0, gather=True, following=decision)

    def _chosen(self, images: Tensor, state: State, decision: Decision) -> Decision:
        decision = self.choose(images, state, decision)
        if decision.regions.batch != len(images):
            raise GlimpseZooError(f"expected a decision for {len(images)} images, got one for {decision.regions.batch}")
        return decision

    def _leave(self, here: _Present, mask: Bool[Tensor, "b"], *, gather: bool, following: Decision | None = None) -> _Present | None:
        """Stop the images of `mask`. Gives those that look on, with the decision that follows, and without the others if `gather`.

        None if no image looks on.
        """
        rest = here if following is None else replace(here, decision=following)
        leaving = int(mask.sum())  # the one wait for the device, where nobody leaves or all do
        if leaving == 0:
            return rest
        if leaving == len(mask):
            self._stop(here)
            return None
        self._stop(here, mask)
        if here.looking is not None and not (here.looking & ~mask).any():
            return None
        if gather:
            return rest.where(~mask)
        return replace(rest, looking=~mask if here.looking is None else here.looking & ~mask)

    def _stop(self, here: _Present, mask: Bool[Tensor, "b"] | None = None) -> None:
        """Write down the images of `mask` (or all) at their last look, classified now if nobody has."""
        if here.looking is not None:
            mask = here.looking if mask is None else here.looking & mask
        if here.logits is None:
            here, mask = self._classify(here if mask is None else here.where(mask)), None
        assert here.logits is not None
        rows, logits = (here.rows, here.logits) if mask is None else (here.rows[mask], here.logits[mask])
        self.stopped.append(_Last(rows, logits, here.state.step))

    def _write_down(self, here: _Present) -> None:
        here = here.lookers()
        self.looks.append(Look(here.rows, here.decision, here.logits, here.state if self.record.states else None))

    def _charge(self, phase: Phase, step: int, here: _Present, macs: Int[Tensor, "b"]) -> None:
        rows = here.rows
        if here.looking is not None:
            rows, macs = rows[here.looking], macs[here.looking]
        getattr(self.macs, phase)[rows, step - 1] = macs

    def _trace(self) -> Trace:
        rows = torch.cat([stop.rows for stop in self.stopped])
        logits = torch.cat([stop.logits for stop in self.stopped])
        last = torch.cat([torch.full_like(stop.rows, stop.step) for stop in self.stopped])
        if len(self.stopped) > 1:  # else they stand in order
            order = rows.argsort()
            logits, last = logits[order], last[order]
        if self.macs is not None:
            self.macs.last_step[:] = last
        return Trace(logits, last, self.budget, tuple(self.looks), self.macs, self.exit_rule.reads)
