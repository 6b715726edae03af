"""The pyramid traversal as a glimpse model: its regions, what its draws depend on, and the rules of the protocol."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from glimpsezoo_pyramid.config import PyramidConfig
from glimpsezoo_pyramid.model import CellDecision, Pyramid, PyramidM3, PyramidState
from torch import Tensor

from glimpsezoo import Confidence, Decision, GlimpseZooError, Noise, Record, Regions, Task, Trace, rollout, thumbnail

TASK = Task((56, 56), 1, tuple("0123456789"), mean=(0.2,), std=(0.5,))
EVERY = Record(every_step=True, states=True)


def model_of(bias: float = -1.5, task: Task = TASK, **settings: Any) -> Pyramid:
    """An untrained model that expects about two cells per node; cells and classes differ between images."""
    torch.manual_seed(0)
    model = PyramidM3(PyramidConfig.parse(settings, owner="pyramid-m3"), task).eval()
    with torch.no_grad():
        model.location.weight.mul_(4)
        model.location.bias.fill_(bias)
        model.classification.weight.mul_(40)
    return model


def images_of(count: int = 12, size: tuple[int, int] = (56, 56)) -> Tensor:
    """Of different brightness, so that the untrained modules tell them apart."""
    pixels = torch.rand(count, 1, *size, generator=torch.Generator().manual_seed(1))
    return pixels * torch.linspace(0.2, 1, count)[:, None, None, None]


def noise_of(count: int = 12) -> Noise:
    return Noise.of(5, torch.arange(count))


def close(got: Tensor, expected: Tensor) -> None:
    """To single precision. Double precision has less rounding, so batches of different sizes must agree far more closely."""
    near = 1e-5 if got.dtype == torch.float32 else 1e-9
    torch.testing.assert_close(got, expected, rtol=near, atol=near)


def regions_of(trace: Trace, image: int) -> list[tuple[Any, ...]]:
    """Everything about the regions of an image, in order."""
    found = []
    for look in trace.looks:
        regions = look.decision.regions
        for i in range(len(regions)):
            if look.rows[regions.image[i]] == image:
                found.append((*regions.centre[i].tolist(), regions.scale[i].item(), regions.level[i].item(), regions.parent[i].item()))
    return found


def test_regions_are_cells_of_their_parents() -> None:
    model, images = model_of(), images_of()
    trace = rollout(model, images, noise=noise_of())
    seen = set()
    for image in range(len(images)):
        nodes = regions_of(trace, image)
        assert nodes[0] == (0.0, 0.0, 1.0, 0, -1)
        for x, y, scale, level, parent in nodes[1:]:
            above_x, above_y, above_scale, above_level, _ = nodes[parent]
            assert (scale, level) == (above_scale / 2, above_level + 1)
            # Half-size cells at 1/4, 1/2 and 3/4 of the parent's side, which is 2 x above_scale long on [-1, 1].
            place = ((x - above_x) / above_scale, (y - above_y) / above_scale)
            assert set(place) <= {-0.5, 0.0, 0.5}
            seen.add(place)
        assert len({node[:3] + node[4:] for node in nodes}) == len(nodes)  # no cell of a node twice
    assert len(seen) == 9


def test_a_region_is_the_part_of_the_image_that_is_computed() -> None:
    """Changing pixels outside the regions changes nothing; inside, the features of exactly the regions that show them."""
    model = model_of()
    images = images_of(1)
    state, _ = model.start(images, noise_of(1))
    centre = torch.tensor([[-0.5, -0.5], [0.0, 0.5], [0.5, 0.0]])
    one = torch.ones(3, dtype=torch.long)
    regions = Regions(image=one * 0, centre=centre, scale=one / 2, level=one, parent=one * 0, batch=1)
    looked = rollout(model, images, steps=1, noise=noise_of(1), record=EVERY).looks[0].state
    assert looked is not None
    before = model.sense(images, looked, regions).vector
    for row, column, changed in ((5, 5, [0]), (54, 27, [1]), (20, 54, [2]), (54, 2, []), (34, 34, [1, 2])):
        other = images.clone()
        other[0, 0, row, column] = 9.0
        state = rollout(model, other, steps=1, noise=noise_of(1), record=EVERY).looks[0].state
        after = model.sense(other, state, regions).vector
        assert (before != after).any(1).nonzero().squeeze(1).tolist() == changed, (row, column)


@pytest.mark.parametrize(
    ("size", "levels"), [((14, 14), 1), ((28, 28), 2), ((56, 56), 3), ((64, 64), 3), ((40, 70), 2), ((9, 30), 1), ((112, 200), 4)]
)
def test_any_image_size_gives_the_levels_that_need_no_enlargement(size: tuple[int, int], levels: int) -> None:
    model = model_of(task=Task(size, 1, tuple("0123456789")))
    trace = rollout(model, images_of(3, size))
    assert model.steps == trace.steps == levels
    finest = model.level_of(images_of(3, size), levels - 1)
    assert finest.shape == (3, 1, 14 * 2 ** (levels - 1), 14 * 2 ** (levels - 1))


def test_levels_can_be_set() -> None:
    model = model_of(levels=2)
    assert model.steps == 2
    assert max(rollout(model, images_of()).last_step) == 2
    with pytest.raises(GlimpseZooError, match=r"levels of pyramid-m3.*got 0"):
        PyramidConfig.parse({"levels": 0}, owner="pyramid-m3")


def test_coarse_levels_are_means_of_the_image() -> None:
    model, images = model_of(task=Task((64, 64), 1, tuple("01"), mean=(0.2,), std=(0.5,))), images_of(2, (64, 64))
    finest = (thumbnail(images, (56, 56)) - 0.2) / 0.5
    for level, factor in enumerate((4, 2, 1)):
        close(model.level_of(images, level), F.avg_pool2d(finest, factor))


def test_a_run_stopped_at_a_level_is_a_run_with_that_budget() -> None:
    model, images = model_of().double(), images_of().double()
    trace = rollout(model, images, noise=noise_of(), record=EVERY)
    assert len(set(trace.last_step.tolist())) > 1
    for step in (1, 2, 3):
        short = rollout(model, images, steps=step, noise=noise_of())
        close(trace.logits_by_step()[:, step - 1], short.logits)
        assert short.regions_by_step().tolist() == trace.regions_by_step()[:, :step].tolist()
    assert (trace.logits_by_step()[:, 0] - trace.logits_by_step()[:, 2]).abs().max() > 0.1


def test_batch_order_and_compaction_change_nothing() -> None:
    model, images, noise = model_of().double(), images_of().double(), noise_of()
    rule = Confidence(0.39)
    whole = rollout(model, images, noise=noise, exit_rule=rule)
    assert set(whole.last_step.tolist()) == {1, 2, 3}
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    others = {
        "uncompacted": rollout(model, images, noise=noise, exit_rule=rule, compact=False),
        "reordered": rollout(model, images[order], noise=noise.select(order), exit_rule=rule),
    }
    for name, other in others.items():
        back = order.argsort() if name == "reordered" else torch.arange(len(images))
        close(other.logits[back], whole.logits)
        assert other.last_step[back].tolist() == whole.last_step.tolist()
        assert [regions_of(other, int(i)) for i in back] == [regions_of(whole, i) for i in range(len(images))]
    for i in range(len(images)):
        row = torch.tensor([i])
        alone = rollout(model, images[row], noise=noise.select(row), exit_rule=rule)
        close(alone.logits, whole.logits[row])
        assert regions_of(alone, 0) == regions_of(whole, i)


def test_states_and_decisions_are_gathered_with_repeats() -> None:
    model, images, noise = model_of().double(), images_of().double(), noise_of()
    look = rollout(model, images, steps=2, noise=noise, record=EVERY).looks[1]
    assert isinstance(look.state, PyramidState)
    index = torch.tensor([4, 1, 1, 0])
    gathered = look.state.select(index)
    close(model.classify(gathered), model.classify(look.state)[index])
    close(
        torch.stack([node.sum() for node in gathered.tree.vector]).sum(), sum(look.state.select(i[None]).tree.vector.sum() for i in index)
    )
    here, there = model.locate(gathered), model.locate(look.state)
    assert isinstance(here, CellDecision)
    assert isinstance(there, CellDecision)
    there = there.select(index)
    for name in ("image", "centre", "scale", "level", "parent"):
        assert getattr(here.regions, name).tolist() == getattr(there.regions, name).tolist(), name
    close(here.log_prob, there.log_prob)
    close(here.cells.probability, there.cells.probability)
    assert here.cells.taken.tolist() == there.cells.taken.tolist()
    assert here.cells.counts().tolist() == there.cells.counts().tolist()


def test_draws_depend_on_the_image_and_the_node_alone() -> None:
    """Two images with the same pixels draw differently; a node's draw does not change with what else was attended."""
    model = model_of(policy="random", cells=3.0)
    same = images_of(1).expand(2, -1, -1, -1)
    trace = rollout(model, same, noise=noise_of(2))
    assert regions_of(trace, 0) != regions_of(trace, 1)
    rows = torch.zeros(2, dtype=torch.long)
    twins = rollout(model, same, noise=noise_of(2).select(rows))
    assert regions_of(twins, 0) == regions_of(twins, 1)
    forked = rollout(model, same, noise=noise_of(2).select(rows).fork(torch.arange(2)))
    assert regions_of(forked, 0) != regions_of(forked, 1)

    def drop_first(images: Tensor, state: Any, decision: Decision) -> Decision:
        keep = torch.ones(len(decision.regions), dtype=torch.bool)
        keep[0] = state.step != 1
        return Decision.certain(decision.regions.keep(keep))

    full, less = (rollout(model, same[:1], noise=noise_of(1), choose=choose) for choose in (None, drop_first))
    grandchildren = [[node for node in regions_of(trace, 0) if node[3] == 2] for trace in (full, less)]
    dropped = regions_of(full, 0)[1]
    assert [node[:4] for node in grandchildren[1]] == [node[:4] for node in grandchildren[0] if regions_of(full, 0)[node[4]] != dropped]
    assert len(grandchildren[1]) < len(grandchildren[0])


def test_log_probability_and_entropy_are_over_all_cells_taken_or_not() -> None:
    model, images = model_of(), images_of()
    look = rollout(model, images, steps=2, noise=noise_of(), record=EVERY).looks[1]
    assert look.state is not None
    decision = model.locate(look.state)
    assert isinstance(decision, CellDecision)
    assert decision.made == "sampled"
    cells, log_prob, entropy = decision.cells, torch.zeros(len(look.rows)), torch.zeros(len(look.rows))
    for image, probability, taken in zip(cells.image.tolist(), cells.probability.tolist(), cells.taken.tolist(), strict=True):
        for p, t in zip(probability, taken, strict=True):
            log_prob[image] += math.log(p if t else 1 - p)
            entropy[image] -= p * math.log(p) + (1 - p) * math.log(1 - p)
    close(decision.log_prob, log_prob)
    close(decision.entropy, entropy)
    assert (decision.regions.counts() == torch.zeros(len(look.rows), dtype=torch.long).index_add(0, cells.image, cells.taken.sum(1))).all()


def test_mode_takes_the_cells_from_one_half_on() -> None:
    model, images = model_of(bias=0.0, decide="mode"), images_of()
    assert not model.stochastic
    trace = rollout(model, images, noise=noise_of(), record=EVERY)
    assert trace.regions_by_step().tolist() == rollout(model, images, noise=noise_of().fork(3)).regions_by_step().tolist()
    look = trace.looks[0]
    assert look.state is not None
    decision = model.locate(look.state)
    assert isinstance(decision, CellDecision)
    assert (decision.cells.taken == (decision.cells.probability >= 0.5)).all()
    assert 0 < decision.cells.taken.float().mean() < 1
    assert (decision.made, decision.log_prob.abs().sum().item(), decision.entropy.abs().sum().item()) == ("mode", 0.0, 0.0)


def test_trivial_policies() -> None:
    images = images_of()
    centre = rollout(model_of(policy="centre"), images)
    assert [node[:4] for node in regions_of(centre, 3)] == [(0.0, 0.0, 2.0**-k, k) for k in range(3)]
    scan = rollout(model_of(policy="scan"), images)
    assert regions_of(scan, 0) == regions_of(scan, 5)
    assert [node[:2] for node in regions_of(scan, 0)] == [(0.0, 0.0), (-0.5, -0.5), (-0.5, -0.75)]  # top left, then the one beside
    many = images_of(1).expand(400, -1, -1, -1)
    random = rollout(model_of(policy="random", cells=3.0), many, steps=2)
    assert random.regions_by_step()[:, 1].float().mean().item() == pytest.approx(3, abs=0.3)
    assert [model_of(policy=policy).stochastic for policy in ("learned", "random", "centre", "scan")] == [True, True, False, False]
    assert not model_of(policy="random", levels=1).stochastic


def test_random_must_leave_some_cells_out() -> None:
    with pytest.raises(GlimpseZooError, match=r"cells of pyramid-m3.*got 9"):
        PyramidConfig.parse({"cells": 9}, owner="pyramid-m3")


def test_trivial_policies_run_no_location_module() -> None:
    model = model_of(policy="scan")
    del model.location
    assert rollout(model, images_of(2)).last_step.tolist() == [3, 3]


def test_an_image_that_chooses_no_cell_is_finished() -> None:
    model = model_of(bias=-40.0)
    with torch.no_grad():
        model.location.weight.zero_()
    trace = rollout(model, images_of(4))
    assert trace.last_step.tolist() == [1] * 4
    close(trace.logits, rollout(model, images_of(4), steps=1).logits)


def test_decisions_may_come_from_anywhere_but_need_a_known_parent() -> None:
    model, images = model_of(), images_of(3)

    def at(parent: int) -> Any:
        def choose(images: Tensor, state: Any, decision: Decision) -> Decision:
            centre = torch.full((3, 2), 0.5)
            return decision if state.step == 0 else Decision.certain(Regions.one_each(centre, 0.5, level=1, parent=parent))

        return choose

    assert rollout(model, images, steps=2, choose=at(0)).last_step.tolist() == [2, 2, 2]
    with pytest.raises(ValueError, match="parent's ordinal"):
        rollout(model, images, steps=2, choose=at(1))


def test_gradients_reach_the_pixels_through_every_level() -> None:
    model, images = model_of(), images_of(2).requires_grad_()
    rollout(model, images, noise=noise_of(2)).logits.sum().backward()
    assert images.grad is not None
    assert (images.grad != 0).float().mean() > 0.5


@pytest.mark.parametrize("decide", ["sample", "mode"])
def test_attacks_reach_the_location_module_through_the_gates_of_attended_cells(decide: str) -> None:
    """The gradient of its bias, from the gradient of explicit gates of 1 and the derivative p (1 - p) of each cell's probability."""
    model, images = model_of(decide=decide, bias=0.3), images_of(6)
    decisions: list[CellDecision] = []

    class Explicit(PyramidM3):
        def _gated(self, vector: Tensor, decision: Decision) -> Tensor:
            if not isinstance(decision, CellDecision):
                return vector
            decisions.append(decision)
            return vector * gates[: len(vector), None]

    def loss() -> Tensor:
        return rollout(model, images, steps=2, noise=noise_of(6)).logits.square().sum()

    value = loss()
    (found,) = torch.autograd.grad(value, model.location.bias)
    gates = torch.ones(6 * 9, requires_grad=True)
    model.__class__ = Explicit
    (to_gates,) = torch.autograd.grad(loss(), gates)
    cells = decisions[0].cells
    to_probability = torch.zeros_like(cells.probability).masked_scatter(cells.taken, to_gates)  # in the order of the regions
    close(found, (to_probability * cells.probability * (1 - cells.probability)).sum(0).detach())
    assert found.abs().max() > 0
    model.__class__ = PyramidM3
    with torch.no_grad():
        assert torch.equal(loss(), value)  # the gates change no value
    assert torch.autograd.grad((model.train(), loss())[1], model.location.bias, allow_unused=True)[0] is None


def test_a_choice_by_somebody_else_has_no_gates() -> None:
    model, images = model_of(), images_of(3)

    def choose(images: Tensor, state: Any, decision: Decision) -> Decision:
        if state.step == 0:
            return decision
        centre = torch.full((3, 2), 0.5)
        return replace(decision, regions=Regions.one_each(centre, 0.5, level=1, parent=0))

    logits = rollout(model, images, steps=2, choose=choose).logits
    assert torch.autograd.grad(logits.sum(), model.location.bias, allow_unused=True)[0] is None
