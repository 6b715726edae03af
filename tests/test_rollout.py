"""The protocol and its driver: a rollout does not depend on the composition of the batch, and calls the model no more than it needs.

What it returns is compared in test_rollout_loop.py.
"""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from toy_models import Counted, Peek, Tree, batch_of_images
from toy_rollouts import CASES, IMAGES, NOISE, Case, close, toy

from glimpsezoo.core.exits import Confidence
from glimpsezoo.core.macs import Meter
from glimpsezoo.core.noise import Noise
from glimpsezoo.core.protocol import State
from glimpsezoo.core.regions import Decision, Regions
from glimpsezoo.core.rollout import Record, Trace, rollout
from glimpsezoo.errors import GlimpseZooError

EVERY_STEP = Record(every_step=True)


@pytest.fixture(params=CASES, ids=lambda case: case.kind.__name__)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture
def model(case: Case) -> Counted:
    return toy(case.kind)


def same_trace(got: Trace, expected: Trace) -> None:
    """Logits, last steps, regions and costs agree, image by image and step by step."""
    close(got.logits, expected.logits)
    assert got.last_step.tolist() == expected.last_step.tolist()
    assert got.regions_by_step().tolist() == expected.regions_by_step().tolist()
    assert len(got.looks) == len(expected.looks)
    for mine, other in zip(got.looks, expected.looks, strict=True):
        assert mine.rows.tolist() == other.rows.tolist()
        for name in ("image", "level", "parent"):
            assert getattr(mine.decision.regions, name).tolist() == getattr(other.decision.regions, name).tolist()
        close(mine.decision.regions.centre, other.decision.regions.centre)
        close(mine.decision.regions.scale, other.decision.regions.scale)
        close(mine.decision.log_prob, other.decision.log_prob)
    if got.macs and expected.macs:
        for name, table in vars(expected.macs).items():
            assert getattr(got.macs, name).tolist() == table.tolist(), name


def with_exits(model: Counted, case: Case, **options: object) -> Trace:
    with torch.no_grad():
        trace = rollout(model, IMAGES, noise=NOISE, exit_rule=case.rule, record=Record(meter=Meter(model)), **options)
    assert len(trace.last_step.unique()) >= 3, "the images of this test are meant to exit at different steps"
    return trace


# The same for any composition of the batch


def test_images_that_leave_the_batch_change_nothing(model: Counted, case: Case) -> None:
    same_trace(with_exits(model, case), with_exits(model, case, compact=False))


def test_images_that_leave_the_batch_are_not_computed_on(model: Counted, case: Case) -> None:
    compacted, whole = toy(case.kind), toy(case.kind)
    with torch.no_grad():
        trace = rollout(compacted, IMAGES, noise=NOISE, exit_rule=case.rule)
        rollout(whole, IMAGES, noise=NOISE, exit_rule=case.rule, compact=False)
    assert compacted.asked["sense"] == trace.regions_by_step().sum()
    assert compacted.asked["fuse"] == trace.last_step.sum()
    assert whole.asked["fuse"] > compacted.asked["fuse"]


def test_a_batch_gives_what_its_images_give_one_by_one(model: Counted, case: Case) -> None:
    together = with_exits(model, case)
    macs, record = together.macs, Record(meter=Meter(model))
    assert macs is not None
    for i in range(len(IMAGES)):
        with torch.no_grad():
            row = torch.tensor([i])
            alone = rollout(model, IMAGES[row], noise=NOISE.select(row), exit_rule=case.rule, record=record)
        close(alone.logits, together.logits[row])
        assert alone.last_step.tolist() == together.last_step[row].tolist()
        assert alone.regions_by_step().tolist() == together.regions_by_step()[row].tolist()
        assert alone.macs is not None
        for name, table in vars(alone.macs).items():
            assert table.tolist() == getattr(macs, name)[row].tolist(), name


def test_the_order_of_a_batch_changes_nothing(model: Counted, case: Case) -> None:
    order = torch.randperm(len(IMAGES), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        shuffled = rollout(model, IMAGES[order], noise=NOISE.select(order), exit_rule=case.rule)
    trace = with_exits(model, case)
    close(shuffled.logits, trace.logits[order])
    assert shuffled.last_step.tolist() == trace.last_step[order].tolist()
    assert shuffled.regions_by_step().tolist() == trace.regions_by_step()[order].tolist()


def test_the_first_steps_of_a_long_run_are_the_steps_of_a_short_one(model: Counted) -> None:
    with torch.no_grad():
        long = rollout(model, IMAGES, noise=NOISE, record=EVERY_STEP)
        for steps in range(1, model.steps + 1):
            short = rollout(model, IMAGES, noise=NOISE, steps=steps)
            close(short.logits, long.logits_by_step()[:, steps - 1])
            assert short.last_step.tolist() == long.last_step.clamp(max=steps).tolist()
            assert short.regions_by_step().tolist() == long.regions_by_step()[:, :steps].tolist()


def test_noise_is_that_of_seed_0_and_the_places_in_the_batch_unless_given() -> None:
    model = toy(Tree)
    with torch.no_grad():
        same_trace(rollout(model, IMAGES), rollout(model, IMAGES, noise=Noise.of(0, torch.arange(24))))
        other = rollout(model, IMAGES, noise=Noise.of(1, torch.arange(24)))
    assert other.regions_by_step().tolist() != rollout(model, IMAGES).regions_by_step().tolist()


# The model is called no more than needed


@pytest.mark.parametrize("compact", [True, False])
def test_images_are_classified_once_at_their_last_look_if_no_rule_reads(model: Counted, compact: bool) -> None:
    rollout(model, IMAGES, noise=NOISE, compact=compact)
    assert model.asked["classify"] == len(IMAGES)


def test_images_are_classified_at_every_look_if_a_rule_reads(model: Counted, case: Case) -> None:
    trace = rollout(model, IMAGES, noise=NOISE, exit_rule=case.rule)
    assert model.asked["classify"] == trace.last_step.sum() < len(IMAGES) * model.steps


def test_nothing_is_located_after_the_last_look(model: Counted, case: Case) -> None:
    trace = rollout(model, IMAGES, noise=NOISE, exit_rule=case.rule)
    confident = trace.logits.softmax(-1).amax(-1) >= case.threshold
    by_themselves = ~confident & (trace.last_step < model.steps)  # located once more, and chose nothing
    assert model.asked["locate"] == (trace.last_step - 1).sum() + by_themselves.sum()
    assert by_themselves.any() == (case.kind is Tree)


@pytest.mark.parametrize("compact", [True, False])
@pytest.mark.parametrize(("kind", "threshold"), [(Peek, 0.6), (Tree, 0.9)])
def test_a_run_ends_once_nobody_looks(kind: type[Counted], threshold: float, compact: bool) -> None:
    trace = rollout(toy(kind), IMAGES, noise=NOISE, exit_rule=Confidence(threshold), compact=compact)
    assert 1 < len(trace.last_step.unique()) == trace.last_step.max() < 4
    assert len(trace.looks) == trace.last_step.max()


def test_nothing_is_located_at_the_end_of_the_budget(model: Counted) -> None:
    rollout(model, IMAGES, noise=NOISE, steps=1)
    assert model.asked["locate"] == 0


# Decisions can be overridden


def corner(images: Tensor, state: State, decision: Decision) -> Decision:
    return Decision.certain(Regions.one_each(torch.full((len(images), 2), -0.5), 0.5), made="searched")


def test_any_decision_can_be_overridden_the_first_one_too() -> None:
    model = toy(Peek)
    with torch.no_grad():
        trace = rollout(model, IMAGES, steps=2, choose=corner)
        crop = IMAGES[:, :, :8, :8]  # what a region at (-0.5, -0.5) of half the side shows, pixel by pixel
        seen = model.see(crop).flatten(1)
        first = torch.tanh(model.fuse_in(seen) + model.fuse_memory.bias)
        second = torch.tanh(model.fuse_in(seen) + model.fuse_memory(first))
        close(trace.logits, 10 * model.head(second))
    assert [look.decision.made for look in trace.looks] == ["searched", "searched"]


def test_a_path_can_be_played_again_on_other_images(model: Counted) -> None:
    path: list[Decision] = []

    def note(images: Tensor, state: State, decision: Decision) -> Decision:
        path.append(decision)
        return decision

    def play(images: Tensor, state: State, decision: Decision) -> Decision:
        return path[state.step]

    others = batch_of_images(24, seed=1).double()
    with torch.no_grad():
        noted = rollout(model, IMAGES, noise=NOISE, choose=note)
        same_trace(rollout(model, IMAGES, noise=Noise.of(0, torch.arange(24)), choose=play), noted)
        played = rollout(model, others, noise=NOISE, choose=play)
        free = rollout(model, others, noise=NOISE)
    assert played.regions_by_step().tolist() == noted.regions_by_step().tolist()
    for look, other in zip(played.looks, noted.looks, strict=True):
        assert torch.equal(look.decision.regions.centre, other.decision.regions.centre)
    assert not torch.allclose(played.logits, noted.logits)
    assert not torch.allclose(played.logits, free.logits)


def test_choose_sees_the_images_still_in_the_batch_with_their_states(model: Counted, case: Case) -> None:
    sizes = []

    def watch(images: Tensor, state: State, decision: Decision) -> Decision:
        rows = torch.stack([(image == IMAGES).flatten(1).all(1).int().argmax() for image in images])
        assert torch.equal(state.noise.keys, NOISE.keys[rows])
        assert len(images) == decision.regions.batch
        sizes.append((state.step, len(images)))
        return decision

    with torch.no_grad():
        trace = rollout(model, IMAGES, noise=NOISE, choose=watch, exit_rule=case.rule)
    assert sizes[0] == (0, 24)
    assert len(sizes) == model.steps
    assert sizes[-1][1] < 24
    for step, size in sizes[1:]:
        looked_on = int((trace.last_step > step).sum())
        assert looked_on <= size <= sizes[step - 1][1]  # images that choose nothing leave after locate


def test_choosing_no_region_finishes_an_image() -> None:
    def odd_ones_stop(images: Tensor, state: State, decision: Decision) -> Decision:
        if state.step == 0:
            return decision
        index = decision.regions.image
        return replace(decision, regions=decision.regions.keep(torch.isin(state.noise.keys[index], NOISE.keys[::2])))

    trace = rollout(toy(Peek), IMAGES, noise=NOISE, choose=odd_ones_stop)
    assert trace.last_step.tolist() == [4, 1] * 12


def test_a_decision_for_other_images_is_refused() -> None:
    def forgetful(images: Tensor, state: State, decision: Decision) -> Decision:
        return decision.select(torch.tensor([0, 1]))

    with pytest.raises(GlimpseZooError, match="expected a decision for 24 images, got one for 2"):
        rollout(toy(Peek), IMAGES, choose=forgetful)


# States can be gathered, and images repeated


def test_repeats_with_forked_noise_are_different_samples_of_one_image() -> None:
    model = toy(Tree)
    repeats = torch.arange(24).repeat_interleave(3)
    sample = torch.arange(3).repeat(24)
    with torch.no_grad():
        forked = rollout(model, IMAGES[repeats], noise=NOISE.select(repeats).fork(sample))
        copied = rollout(model, IMAGES[repeats], noise=NOISE.select(repeats))
        second = rollout(model, IMAGES, noise=NOISE.fork(1))
    trees = forked.regions_by_step().view(24, 3, -1)  # [images, samples, steps]
    assert (trees != trees[:, :1]).any(-1).any(-1).float().mean() > 0.5
    same = copied.regions_by_step().view(24, 3, -1)
    assert torch.equal(same, same[:, :1].expand_as(same))
    close(forked.logits.view(24, 3, -1)[:, 1], second.logits)


def test_a_state_gathered_with_repeats_goes_on_as_its_images_do(model: Counted) -> None:
    with torch.no_grad():
        trace = rollout(model, IMAGES, noise=NOISE, steps=2, record=Record(states=True))
        look = trace.looks[-1]
        assert look.state is not None
        index = torch.tensor([5, 5, 0, 3, 5])
        gathered = look.state.select(index)
        close(model.classify(gathered), model.classify(look.state)[index])
        mine, whole = model.locate(gathered), model.locate(look.state).select(index)
        assert mine.regions.image.tolist() == whole.regions.image.tolist()
        close(mine.regions.centre, whole.regions.centre)
        close(mine.log_prob, whole.log_prob)


def test_the_state_after_every_look_is_recorded_on_demand(model: Counted, case: Case) -> None:
    with torch.no_grad():
        trace = rollout(model, IMAGES, noise=NOISE, exit_rule=case.rule, record=Record(states=True))
        plain = rollout(model, IMAGES, noise=NOISE, exit_rule=case.rule)
        assert all(look.state is None for look in plain.looks)
        for step, look in enumerate(trace.looks, 1):
            assert look.state is not None
            assert look.state.step == step
            assert torch.equal(look.state.noise.keys, NOISE.keys[look.rows])
            assert look.logits is not None
            close(model.classify(look.state), look.logits)


# Gradients


def gradients(model: Counted) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_gradients_are_those_of_the_loop_over_the_phases() -> None:
    model, reference = toy(Peek), toy(Peek)
    rollout(model, IMAGES).logits.square().sum().backward()
    state, decision = reference.start(IMAGES, NOISE)
    for step in range(1, 5):
        state = reference.fuse(state, decision, reference.sense(IMAGES, state, decision.regions))
        decision = reference.locate(replace(state, step=step))
    reference.classify(state).square().sum().backward()
    expected = gradients(reference)
    assert set(expected) == {name for name, _ in model.named_parameters()}
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-4, msg=name)


def test_gradients_flow_through_exits_and_decisions(model: Counted, case: Case) -> None:
    found = []
    for compact in (True, False):
        model.zero_grad()
        trace = rollout(model, IMAGES, noise=NOISE, exit_rule=case.rule, compact=compact)
        (trace.logits.square().sum() + sum(look.decision.log_prob.sum() for look in trace.looks)).backward()
        found.append(gradients(model))
    assert set(found[0]) == {name for name, _ in model.named_parameters()}
    for name, gradient in found[0].items():
        assert gradient.abs().sum() > 0, name
        torch.testing.assert_close(gradient, found[1][name], rtol=1e-4, atol=1e-4, msg=name)


# Traces by step, and what is refused


def test_logits_by_step_keep_the_last_ones_of_images_that_left(model: Counted, case: Case) -> None:
    with torch.no_grad():
        trace = rollout(model, IMAGES, noise=NOISE, exit_rule=case.rule)
        whole = rollout(model, IMAGES, noise=NOISE, record=EVERY_STEP).logits_by_step()
    last = torch.minimum(torch.arange(4)[None], trace.last_step[:, None] - 1)  # [B, T]
    close(trace.logits_by_step(), whole.gather(1, last[:, :, None].expand(-1, -1, 3)))


def test_tables_have_a_column_a_step_of_the_budget_even_if_nobody_is_left() -> None:
    trace = rollout(toy(Peek), IMAGES, exit_rule=Confidence(0.0))
    assert len(trace.looks) == 1
    assert trace.steps == 4
    assert trace.logits_by_step().shape == (24, 4, 3)
    close(trace.logits_by_step()[:, 3], trace.logits)
    assert trace.regions_by_step().tolist() == [[1, 0, 0, 0]] * 24


def test_logits_by_step_need_every_step_classified() -> None:
    with pytest.raises(GlimpseZooError, match=r"record=Record\(every_step=True\)"):
        rollout(toy(Peek), IMAGES).logits_by_step()


@pytest.mark.parametrize("steps", [0, -1, 5])
def test_a_budget_out_of_range_is_refused(steps: int) -> None:
    with pytest.raises(GlimpseZooError, match=f"expected a budget of 1 to 4 steps for this model, got {steps}"):
        rollout(toy(Peek), IMAGES, steps=steps)


def test_no_images_and_noise_of_other_images_are_refused() -> None:
    with pytest.raises(GlimpseZooError, match="got 0 and 0"):
        rollout(toy(Peek), IMAGES[:0])
    with pytest.raises(GlimpseZooError, match="got 24 and 3"):
        rollout(toy(Peek), IMAGES, noise=Noise.of(0, torch.arange(3)))
