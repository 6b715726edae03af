"""A rollout returns what the phases compute: compared with the loop written out, and with a recursion over one tree at a time."""

from dataclasses import replace

import torch
from torch import Tensor
from toy_models import Peek, Tree
from toy_rollouts import IMAGES, NOISE, close, toy

from glimpsezoo.core.protocol import State
from glimpsezoo.core.regions import Regions
from glimpsezoo.core.rollout import rollout


def test_a_rollout_is_the_loop_over_the_phases() -> None:
    model = toy(Peek)
    with torch.no_grad():
        state, decision = model.start(IMAGES, NOISE)
        for step in (1, 2, 3):
            features = model.sense(IMAGES, state, decision.regions)
            state = replace(model.fuse(state, decision, features), step=step)
            decision = model.locate(state)
        close(rollout(model, IMAGES, noise=NOISE, steps=3).logits, model.classify(state))


def test_every_image_of_a_tree_is_looked_at_until_nothing_is_chosen() -> None:
    """Compared with a recursion over one tree at a time that makes the same draws."""
    model = toy(Tree)
    with torch.no_grad():
        trace = rollout(model, IMAGES, noise=NOISE)
        counts = trace.regions_by_step()
        assert (counts[:, 0] == 1).all()
        assert {1, 2, 3} <= set(trace.last_step.tolist()), "some trees of this test are meant to end at every level"
        for i in range(len(IMAGES)):
            features, chosen, last = grow(model, i)
            assert [len([n for n in chosen if level_of(n) == level]) for level in range(model.steps)] == counts[i].tolist()
            assert trace.last_step[i] == last
            close(trace.logits[i], 20 * model.head(merged(model, features, chosen, 1)))


def level_of(number: int) -> int:
    return 0 if number == 1 else 1 + level_of(number // 4)


def grow(model: Tree, i: int) -> tuple[dict[int, Tensor], list[int], int]:
    """Features by node number, the nodes taken, and the number of steps, of image `i` alone."""
    row, noise = IMAGES[i : i + 1], NOISE.select(torch.tensor([i]))
    features: dict[int, Tensor] = {}
    here = {1: (0.0, 0.0)}
    chosen: list[int] = []
    for step in range(1, model.steps + 1):
        following: dict[int, tuple[float, float]] = {}
        half = 0.5 ** (step - 1)
        for number, (x, y) in here.items():
            region = Regions.one_each(torch.tensor([[x, y]]), half, level=step - 1)
            features[number] = model.sense(row, None, region)[0]
            odds = torch.sigmoid(3 * model.odds(features[number]) - 1)
            coins = noise.uniform(step, 4, lane=number)[0]
            for child in range(4):
                if coins[child] < odds[child]:
                    following[4 * number + child] = (x + half * (child % 2 - 0.5), y + half * (child // 2 - 0.5))
        chosen += list(here)
        if step == model.steps or not following:
            return features, chosen, step
        here = following
    raise AssertionError("unreachable")


def merged(model: Tree, features: dict[int, Tensor], chosen: list[int], number: int) -> Tensor:
    children = [n for n in chosen if n // 4 == number]
    if not children:
        return features[number]
    below = torch.stack([merged(model, features, chosen, n) for n in children]).sum(0)
    return torch.tanh(model.merge(torch.cat([features[number], below])))


def test_regions_name_their_parents() -> None:
    model = toy(Tree)
    with torch.no_grad():
        trace = rollout(model, IMAGES, noise=NOISE)
    for i in range(len(IMAGES)):
        mine = [region for look in trace.looks for region in regions_of(look.rows.tolist(), look.decision.regions, i)]
        assert mine[0] == (0.0, 0.0, 1.0, 0, -1)
        for x, y, scale, level, parent in mine[1:]:
            px, py, above, upper, _ = mine[parent]
            assert (above, upper) == (2 * scale, level - 1)
            assert abs(x - px) == abs(y - py) == scale


def regions_of(rows: list[int], regions: Regions, image: int) -> list[tuple[float, float, float, int, int]]:
    """(x, y, scale, level, parent) of the regions of one image of the original batch."""
    return [
        (*centre, scale, level, parent)
        for row, centre, scale, level, parent in zip(
            regions.image.tolist(),
            regions.centre.tolist(),
            regions.scale.tolist(),
            regions.level.tolist(),
            regions.parent.tolist(),
            strict=True,
        )
        if rows[row] == image
    ]


def test_a_model_that_locates_nothing_takes_one_look() -> None:
    class OneLook(Peek):
        def locate(self, state: State) -> None:
            return None

    trace = rollout(toy(OneLook), IMAGES)
    assert trace.last_step.tolist() == [1] * 24
    assert trace.regions_by_step().tolist() == [[1, 0, 0, 0]] * 24
