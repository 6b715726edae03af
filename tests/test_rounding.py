"""The effect of rounding: honest models pass the rules however sensitive they are, and rounding hides no fault."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from toy_models import Peek, PeekState, Tree, batch_of_images, toy

from glimpsezoo import Decision, Noise, Record, Regions, rollout
from glimpsezoo.core.rounding import FIRST
from glimpsezoo.testing import Case, check_rule, excess, tolerance

RULES = ("determinism", "batch", "order", "compaction", "gather", "join", "prefix")
EPS = torch.finfo(torch.float32).eps


def broken(model: Any, count: int = 8) -> list[str]:
    """The rules that a model fails, and those that cannot decide."""
    case = Case.of(model, batch_of_images(count))
    return [rule for rule in RULES if check_rule(rule, case).status != "ok"]


class Sensitive(Peek):
    """The next glimpse is a steep function of the memory, so rounding grows a hundredfold from step to step."""

    def locate(self, state: PeekState) -> Decision:
        turns = 300 * self.where(state.memory)
        return Decision.certain(Regions.one_each(0.7 * torch.sin(turns), 0.3), made="regressed")


# From the second step on, a thousandth of an image's memory comes from somewhere else


def normed_by_the_batch(memory: Tensor, state: PeekState) -> Tensor:
    return F.batch_norm(memory, None, None, training=True) if len(memory) > 1 else memory


def drawn_by_the_batch(memory: Tensor, state: PeekState) -> Tensor:
    return Noise.of(0, torch.arange(len(memory))).uniform(state.step, memory.shape[1]).to(memory)


def leaked_from_a_neighbour(memory: Tensor, state: PeekState) -> Tensor:
    return memory.roll(1, 0)


def leaked_in_float32(memory: Tensor, state: PeekState) -> Tensor:
    return memory.roll(1, 0) if memory.dtype == torch.float32 else memory


def faulty(kind: type[Peek], other: Callable[[Tensor, PeekState], Tensor]) -> Peek:
    class Faulty(kind):  # type: ignore[valid-type,misc]
        def fuse(self, state: PeekState, decision: Decision, features: Tensor) -> PeekState:
            fused = super().fuse(state, decision, features)
            return replace(fused, memory=torch.lerp(fused.memory, other(fused.memory, state), 1e-3)) if state.step else fused

    return toy(Faulty)


@pytest.mark.parametrize("kind", [Peek, Sensitive, Tree])
def test_honest_models_keep_the_rules(kind: Any) -> None:
    assert broken(toy(kind), 24) == []


def test_a_sensitive_model_differs_between_batches_by_more_than_any_constant() -> None:
    model, images = toy(Sensitive), batch_of_images(24)
    record = Record(every_step=True)
    with torch.no_grad():
        whole = rollout(model, images, record=record).logits_by_step()
        alone = torch.cat([
            rollout(model, images[[i]], noise=Noise.of(0, torch.tensor([i])), record=record).logits_by_step() for i in range(24)
        ])  # fmt: skip
    allowed = tolerance(model, images)
    by_step = (allowed.logits / allowed.largest).amax(0)
    assert by_step[0] == pytest.approx(FIRST * EPS)
    assert by_step[3] > 1000 * by_step[0]
    assert 0 < excess(alone, whole, allowed.logits) <= 1
    exact = tolerance(model, images, dtype=torch.float64)
    assert exact.telling == 24
    assert exact.logits[:, 3].max() < 1e-5 * allowed.logits[:, 3].max()


@pytest.mark.parametrize("kind", [Peek, Sensitive])
@pytest.mark.parametrize("other", [normed_by_the_batch, drawn_by_the_batch, leaked_from_a_neighbour])
def test_a_thousandth_of_another_image_is_seen_in_sensitive_models_too(kind: type[Peek], other: Any) -> None:
    assert {"batch", "order"} & set(broken(faulty(kind, other)))


def test_what_happens_in_float32_alone_is_seen() -> None:
    assert "batch" in broken(faulty(Peek, leaked_in_float32))


def test_what_a_model_keeps_from_run_to_run_is_no_rounding() -> None:
    class Tires(Peek):
        runs = 0

        def start(self, images: Tensor, noise: Noise) -> Any:
            self.runs += 1
            return super().start(images, noise)

        def classify(self, state: PeekState) -> Tensor:
            return super().classify(state) * (1 + 1e-3 * self.runs)

    assert "determinism" in broken(toy(Tires))


def test_what_torch_s_generator_draws_is_no_rounding() -> None:
    class Careless(Peek):
        def locate(self, state: PeekState) -> Decision:
            return super().locate(replace(state, memory=state.memory + 1e-3 * torch.rand_like(state.memory)))

    assert "determinism" in broken(toy(Careless))


class Brightest(Peek):
    """Looks at the brightest quarter."""

    def start(self, images: Tensor, noise: Noise) -> tuple[PeekState, Decision]:
        state, decision = super().start(images, noise)
        quarters = F.avg_pool2d(images, 8).flatten(1)  # [B, 4]
        return replace(state, memory=F.pad(quarters, (0, 20))), decision

    def fuse(self, state: PeekState, decision: Decision, features: Tensor) -> PeekState:
        return replace(state, memory=torch.cat([state.memory[:, :4], super().fuse(state, decision, features).memory[:, 4:]], 1))

    def locate(self, state: PeekState) -> Decision:
        best = state.memory[:, :4].argmax(1)
        centre = torch.stack([best % 2, best // 2], 1).to(state.memory) - 0.5
        return Decision.certain(Regions.one_each(centre, 0.5), made="mode")


def test_a_tie_may_fall_either_way_and_tells_nothing() -> None:
    images = batch_of_images(8)
    images[:3, :, 8:] = images[:3, :, :8].flip(2)  # the lower quarters mirror the upper ones, so two are equally bright
    model = toy(Brightest)
    allowed = tolerance(model, images)
    assert (allowed.places[:, 1] > 0.9).tolist() == [True] * 3 + [False] * 5
    finding = check_rule("batch", Case.of(model, images))
    assert (finding.status, finding.numbers["images at ties"]) == ("ok", 3)
    every = check_rule("batch", Case.of(model, images[:3]))
    assert (every.status, every.numbers["images at ties"]) == ("skipped", 3)
    assert "rounding decides" in every.message


def test_a_model_that_does_not_run_in_double_precision_is_told_so() -> None:
    class Insists(Peek):
        def classify(self, state: PeekState) -> Tensor:
            return super().classify(state) @ torch.eye(3)

    finding = check_rule("batch", Case.of(toy(Insists), batch_of_images(4)))
    assert finding.status == "skipped"
    assert "see float64" in finding.message
