"""The loop as graphs that torch.export can follow: all steps of `rollout` in one, or one per step.

In a graph, no choice may depend on values. So images that are finished leave the batch as in `rollout`, but the steps go on even if no
image is left. With a graph per step, whoever runs them stops when no image is left.
"""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.fx.experimental.symbolic_shapes import statically_known_true

from glimpsezoo.core.batched import Batched
from glimpsezoo.core.exits import ExitRule
from glimpsezoo.core.noise import Noise
from glimpsezoo.core.protocol import GlimpseModel
from glimpsezoo.core.regions import Decision
from glimpsezoo.core.rollout import ChosenBy, Present, Record, Rollout, indices
from glimpsezoo.errors import GlimpseZooError


class GraphOutputs(NamedTuple):
    """The outputs of a graph of all steps, for B images."""

    logits: Float[Tensor, "B classes"]
    """At the last step of every image."""
    last_step: Int[Tensor, "B"]
    """The last step that every image took, from 1."""


class _Unrolled(Rollout):
    """A rollout without a choice that depends on values."""

    def _leave(self, here: Present, mask: Bool[Tensor, "b"], *, compact: bool, following: Decision | None = None) -> Present:
        rest = here if following is None else replace(here, decision=following)
        self._stop(here, indices(mask))
        return rest.select(indices(~mask))

    def outputs(self, batch: int) -> GraphOutputs:
        """The logits and the last steps of all images, once none is left."""
        if len(self.stopped) == 1:  # all images took all steps, so they are in order
            (only,) = self.stopped
            return GraphOutputs(only.logits, torch.full_like(only.index, only.last_step))
        rows, logits, last = self.classified()
        return GraphOutputs(
            logits.new_zeros(batch, logits.shape[1]).index_copy(0, rows, logits),
            last.new_zeros(batch).index_copy(0, rows, last),
        )


class AllSteps(nn.Module):
    """A model as a function of images, and of their ids if it draws from their noise."""

    def __init__(self, model: GlimpseModel[Any], steps: int, exit_rule: ExitRule, seed: int) -> None:
        super().__init__()
        self.model, self.steps, self.exit_rule, self.seed = model, steps, exit_rule, seed

    def forward(self, images: Float[Tensor, "B C H W"], ids: Int[Tensor, "B"] | None = None) -> tuple[Tensor, Tensor]:
        """The fields of `GraphOutputs` as a plain tuple, which a saved program can hold."""
        run = _Unrolled(self.model, ChosenBy(self.model, self.model.follows), self.steps, self.exit_rule)
        here: Present | None = _started(run, images, ids, self.seed)
        while here is not None:
            here = run.step(here)
        return tuple(run.outputs(len(images)))  # type: ignore[return-value]


def _started(run: Rollout, images: Tensor, ids: Tensor | None, seed: int) -> Present:
    rows = torch.arange(len(images), device=images.device)
    return run.start(images, Noise(rows) if ids is None else Noise.of(seed, ids), rows)


class _OneStep(Rollout):
    """One step of a rollout. The caller keeps track of exits and of the last step."""

    exits: Bool[Tensor, "b"] | None = None
    """The images that exit at this step; None without a rule that reads logits."""

    def _leave(self, here: Present, mask: Bool[Tensor, "b"], *, compact: bool, following: Decision | None = None) -> Present:
        if following is None:
            self.exits = mask
            return here
        return replace(here, decision=following).select(indices(~mask))  # the others were classified in the step before

    def _stop(self, here: Present, index: Tensor | None = None) -> None:
        self.last = here


class Stepped(NamedTuple):
    """The outputs of the graph of one step."""

    rows: Int[Tensor, "m"]
    """The places of the m images that took the step, among those that were given. The others are finished: no region was chosen."""
    logits: Float[Tensor, "m classes"]
    exits: Bool[Tensor, "m"]
    """Whether the exit rule lets an image exit now; at the last step, all exit."""
    state: list[Tensor]
    """What the next step needs to know of the m images; empty after the last step."""


class Carried(NamedTuple):
    """What the graph of one step hands to that of the next."""

    state: Any
    history: tuple[Tensor, ...]
    """The logits of the steps that the exit rule reads."""


class OneStep(nn.Module):
    """One step of a model with an exit rule. The first takes images and ids; a later one takes images, their places, and the state.

    layouts: those of the states after the steps so far (see `flattened`). Tracing this step appends its own.
    """

    def __init__(self, model: GlimpseModel[Any], steps: int, exit_rule: ExitRule, seed: int, layouts: list[Any]) -> None:
        super().__init__()
        self.model, self.steps, self.exit_rule, self.seed = model, steps, exit_rule, seed
        self.before, self.tell = (layouts[-1] if layouts else None), layouts.append  # torch.export undoes what is assigned to a module

    def forward(
        self, images: Float[Tensor, "n C H W"], places: Int[Tensor, "n"] | None = None, state: Sequence[Tensor] | None = None
    ) -> Stepped:
        """places: the ids of the images; in later steps, the places in the state [N] of those n images that take this step."""
        run = _OneStep(self.model, ChosenBy(self.model, self.model.follows), self.steps, self.exit_rule, Record(every_step=True))
        if state is None:
            here = _started(run, images, places, self.seed)
        else:
            assert places is not None
            before, history = unflattened(self.before, iter(state), len(state[0]))
            kept = Present(torch.arange(len(state[0])), torch.empty(len(state[0]), 0), before, None, history=history).select(places)
            here = replace(kept, rows=torch.arange(len(images)), images=images)
        after = run.step(here) or run.last
        assert after.logits is not None  # every step is classified
        tensors: list[Tensor] = []
        if after.state.step == self.steps:
            return Stepped(after.rows, after.logits, torch.ones_like(after.rows, dtype=torch.bool), tensors)
        exits = torch.zeros_like(after.rows, dtype=torch.bool) if run.exits is None else run.exits
        self.tell(flattened(Carried(after.state, after.history), tensors, after.rows.shape[0]))
        return Stepped(after.rows, after.logits, exits, tensors)


class _Group(NamedTuple):
    """What a value consists of, in the layout of a state."""

    kind: type
    parts: dict[str, Any]


class _Same(NamedTuple):
    """A value that all images share."""

    value: Any


_TENSOR, _BATCH = "tensor", "batch"


def flattened(value: Any, tensors: list[Tensor], batch: int) -> Any:
    """Appends the tensors of any value that `gather` takes, and returns its layout, from which `unflattened` makes the value again."""
    if isinstance(value, Tensor):
        tensors.append(value.clone())  # two outputs of a graph must not be one
        return _TENSOR
    if isinstance(value, Batched):
        parts = {each.name: getattr(value, each.name) for each in fields(value)}
    elif isinstance(value, tuple):
        parts = dict(zip(getattr(value, "_fields", map(str, range(len(value)))), value, strict=True))
    elif isinstance(value, torch.SymInt):
        if not statically_known_true(value == batch):
            raise GlimpseZooError(f"expected no size in a state but the number of images, got {value}: keep tensors instead")
        return _BATCH
    else:
        return _Same(value)
    return _Group(type(value), {name: flattened(part, tensors, batch) for name, part in parts.items()})


def unflattened(layout: Any, tensors: Any, batch: int) -> Any:
    """The value of a layout. tensors: an iterator over its tensors."""
    if layout == _TENSOR:
        return next(tensors)
    if layout == _BATCH:
        return batch
    if isinstance(layout, _Same):
        return layout.value
    parts = {name: unflattened(part, tensors, batch) for name, part in layout.parts.items()}
    return tuple(parts.values()) if layout.kind is tuple else layout.kind(**parts)


def names_of(layout: Any, path: str = "") -> list[str]:
    """The names of a layout's tensors, in their order: the path of each through the fields of the state."""
    if layout == _TENSOR:
        return [path.lstrip(".")]
    return [name for key, part in layout.parts.items() for name in names_of(part, f"{path}.{key}")] if isinstance(layout, _Group) else []
