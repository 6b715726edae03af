"""The one driver of every model: training, evaluation, early exit, tracing and cost counting all go through `rollout`."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

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

    logits: [B, classes] at every image's last look. last_step: [B], 1 = the first look. looks: one entry a step.
    macs: the cost by phase and step if a meter was given. rule_reads: whether an exit rule read every step.
    """

    logits: Float[Tensor, "B classes"]
    last_step: Int[Tensor, "B"]
    looks: tuple[Look, ...]
    macs: MacTable | None = None
    rule_reads: bool = False

    @property
    def steps(self) -> int:
        return len(self.looks)

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
    decision, as `choose(images, state, decision) -> decision`. noise: the images' randomness (seed 0 and ids 0..B-1 by default).
    compact: images that exit leave the batch, so that saved MACs are saved time; without it, they are computed on to the end and
    their later looks are not recorded: the same trace, dearer.

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
    run = _Run(model, budget, exit_rule or Fixed(), choose or _as_decided, record or Record(), compact)
    return run(images, noise)


def _as_decided(images: Tensor, state: State, decision: Decision) -> Decision:
    return decision


@dataclass(frozen=True)
class _Present(Batched):
    """The images that are in the batch now, and all that belongs to them.

    rows: their places in the original batch. looking: false for images that exited but were not compacted away.
    logits: of this step, if it was classified. history: the logits of all steps so far, if the exit rule reads them.
    """

    rows: Int[Tensor, "b"]
    looking: Bool[Tensor, "b"]
    images: Float[Tensor, "b C H W"]
    state: State
    decision: Decision
    logits: Float[Tensor, "b classes"] | None = None
    history: tuple[Tensor, ...] = ()

    def where(self, mask: Bool[Tensor, "b"]) -> "_Present":
        return self if mask.all() else self.select(mask.nonzero().squeeze(1))


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
    stopped: list[tuple[Tensor, Tensor, int]] = field(default_factory=list)  # rows, their last logits, their last step
    macs: MacTable | None = None

    def __call__(self, images: Tensor, noise: Noise) -> Trace:
        here = self._start(images, noise)
        for step in range(1, self.budget + 1):
            here = self._look(here, step)
            if step == self.budget or self.record.every_step or self.exit_rule.reads:
                here = self._classify(here)
            self._write_down(here)
            here = self._exit(here)
            if not here.looking.any():
                break
            here = self._locate(here)
            if not here.looking.any():
                break
        return self._trace()

    def _start(self, images: Tensor, noise: Noise) -> _Present:
        rows = torch.arange(len(images), device=images.device)
        state, decision = self.model.start(images, noise)
        if self.record.meter:
            self.macs = MacTable.empty(len(images), self.budget, images.device)
            self.macs.start[:] = self.record.meter.start(images, noise)
        return _Present(rows, torch.ones_like(rows, dtype=torch.bool), images, state, self.choose(images, state, decision))

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

    def _exit(self, here: _Present) -> _Present:
        """Stop the images that exit now: all of them at the end of the budget, else those that the rule names."""
        if here.state.step == self.budget:
            exits = here.looking
        elif self.exit_rule.reads:
            exits = here.looking & self.exit_rule.exits(torch.stack(here.history, 1))
        else:
            return here
        self._stop(here, exits)
        here = replace(here, looking=here.looking & ~exits)
        return here.where(here.looking) if self.compact else here

    def _locate(self, here: _Present) -> _Present:
        """Ask where to look next. Images for which nothing is chosen are finished, and leave the batch in any case."""
        decision = self.model.locate(here.state)
        if meter := self.record.meter:
            step = here.state.step
            self._charge("locate", step, here, meter.locate(step, here.images, here.state, here.decision))
        if decision is None:
            self._stop(here, here.looking)
            return replace(here, looking=torch.zeros_like(here.looking))
        decision = self.choose(here.images, here.state, decision)
        chosen = decision.regions.counts() > 0
        self._stop(here, here.looking & ~chosen)
        return replace(here, decision=decision).where(chosen)

    def _stop(self, here: _Present, mask: Bool[Tensor, "b"]) -> None:
        """Write down the last logits of the images of `mask`, classifying them now if nobody has."""
        if mask.any():
            here = here.where(mask)
            here = here if here.logits is not None else self._classify(here)
            self.stopped.append((here.rows, here.logits, here.state.step))  # type: ignore[arg-type]

    def _write_down(self, here: _Present) -> None:
        here = here.where(here.looking)
        self.looks.append(Look(here.rows, here.decision, here.logits, here.state if self.record.states else None))

    def _charge(self, phase: Phase, step: int, here: _Present, macs: Tensor) -> None:
        getattr(self.macs, phase)[here.rows[here.looking], step - 1] = macs[here.looking]

    def _trace(self) -> Trace:
        rows = torch.cat([rows for rows, _, _ in self.stopped])
        logits = torch.cat([logits for _, logits, _ in self.stopped])
        last = torch.cat([torch.full_like(rows, step) for rows, _, step in self.stopped])
        order = rows.argsort()
        return Trace(logits[order], last[order], tuple(self.looks), self.macs, self.exit_rule.reads)
