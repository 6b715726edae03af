"""A stream of batches: its images take the steps that they take in `rollout`, with others that take the same step."""

import pytest
import torch
from toy_models import Peek
from toy_rollouts import CASES, IMAGES, Case, close, toy

from glimpsezoo import Confidence, Decision, GlimpseZooError, Noise, Patience, Regions, RolloutStream, rollout
from glimpsezoo.core.batched import join, repeated

NOISE = Noise.of(7, torch.arange(len(IMAGES)))


@pytest.fixture(params=CASES, ids=lambda case: case.kind.__name__)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def classified(stream: RolloutStream, pieces: list[torch.Tensor]) -> tuple[torch.Tensor, list[int]]:
    """Logits and last steps of all images of a stream, by their places."""
    with torch.no_grad():
        done = [each for piece in pieces for each in stream.add(piece)] + stream.finish()
    order = torch.cat([each.index for each in done]).argsort()
    steps = torch.cat([torch.full_like(each.index, each.last_step) for each in done])
    return torch.cat([each.logits for each in done])[order], steps[order].tolist()


@pytest.mark.parametrize("sizes", [[24], [1] * 24, [5, 2, 9, 8], [0, 23, 1]])
@pytest.mark.parametrize("batch_size", [1, 4, 1000])
def test_images_take_the_steps_that_they_take_in_a_rollout(case: Case, sizes: list[int], batch_size: int) -> None:
    with torch.no_grad():
        alone = rollout(toy(case.kind), IMAGES, noise=NOISE, exit_rule=case.rule)
    assert len(alone.last_step.unique()) >= 3
    stream = RolloutStream(toy(case.kind), batch_size=batch_size, exit_rule=case.rule, seed=7)
    logits, last = classified(stream, list(IMAGES.split(sizes)))
    close(logits, alone.logits)
    assert last == alone.last_step.tolist()


def test_a_step_is_taken_by_as_many_images_as_asked_for_or_more() -> None:
    asked: list[int] = []

    class Noted(Peek):
        def sense(self, images: torch.Tensor, state: object, regions: Regions) -> torch.Tensor:
            asked.append(len(images))
            return super().sense(images, state, regions)

    stream = RolloutStream(toy(Noted), batch_size=6, exit_rule=CASES[0].rule, seed=7)
    with torch.no_grad():
        for piece in IMAGES.split(3):
            stream.add(piece)
    assert asked
    assert min(asked) >= 6
    assert sum(asked) < 24 * 4  # some exit
    waited = len(asked)
    with torch.no_grad():
        stream.finish()
    assert min(asked[waited:]) < 6


def test_nothing_waits_after_finish_and_the_stream_goes_on(case: Case) -> None:
    stream = RolloutStream(toy(case.kind), batch_size=100, seed=7)
    with torch.no_grad():
        assert stream.add(IMAGES[:10]) == []
        first = stream.finish()
        assert stream.finish() == []
        stream.add(IMAGES[10:])
        second = stream.finish()
    found = torch.cat([each.index for each in first]), torch.cat([each.index for each in second])
    assert [each.sort().values.tolist() for each in found] == [list(range(10)), list(range(10, 24))]


def test_a_rule_reads_the_steps_of_each_image_whatever_it_has_joined() -> None:
    with torch.no_grad():
        alone = rollout(toy(Peek), IMAGES, exit_rule=Patience(1))
    assert len(alone.last_step.unique()) > 1
    logits, last = classified(RolloutStream(toy(Peek), batch_size=5, exit_rule=Patience(1)), list(IMAGES.split(3)))
    close(logits, alone.logits)
    assert last == alone.last_step.tolist()


def test_budgets_and_batch_sizes_out_of_range_are_refused(case: Case) -> None:
    _, last = classified(RolloutStream(toy(case.kind), batch_size=5, steps=2), [IMAGES])
    assert max(last) == 2
    with pytest.raises(GlimpseZooError, match="expected a budget of 1 to 4 steps for this model, got 5"):
        RolloutStream(toy(case.kind), batch_size=5, steps=5)
    with pytest.raises(GlimpseZooError, match="expected a batch size of 1 or more, got 0"):
        RolloutStream(toy(case.kind), batch_size=0)


def test_a_layout_with_its_own_select_needs_its_own_join() -> None:
    class Forgotten(Decision):
        def select(self, index: torch.Tensor) -> "Forgotten":
            return self

    class Forgets(Peek):
        def locate(self, state: object) -> Decision:
            return Forgotten(**vars(super().locate(state)))

    stream = RolloutStream(toy(Forgets), batch_size=30, exit_rule=Confidence(1))
    decision = toy(Forgets).locate(toy(Peek).start(IMAGES, NOISE)[0])
    with pytest.raises(GlimpseZooError, match="batches of Forgotten cannot be joined: it has its own `select`, so give it its own `join`"):
        Forgotten.join([decision, decision])
    assert len(classified(stream, list(IMAGES.split(3)))[1]) == 24  # a stream joins images before they are asked where to look


def test_what_all_images_share_must_be_the_same() -> None:
    assert join([3, 3]) == 3
    with pytest.raises(GlimpseZooError, match="expected batches that share 3, got one with 4: join those of one step and one model"):
        join([3, 4])
    with pytest.raises(GlimpseZooError, match="expected batches that share"):
        join([torch.tensor(1), torch.tensor(2)])


def test_what_is_in_memory_once_stays_so() -> None:
    ones, twos = (repeated(value, 4, torch.float32, torch.device("cpu")) for value in (1.0, 2.0))
    same, other = join([ones, ones[:2]]), join([ones, twos])
    assert (same.stride(0), same.tolist()) == (0, [1.0] * 6)
    assert other.tolist() == [1.0] * 4 + [2.0] * 4


def test_regions_of_several_batches_are_those_of_one() -> None:
    centre = torch.rand(5, 2)
    single = Regions.one_each(centre, 0.5)
    assert Regions.join([Regions.one_each(centre[:2], 0.5), Regions.one_each(centre[2:], 0.5)]).single
    several = single.select(torch.tensor([0, 0, 1, 3])).keep(torch.tensor([True, False, True, True]))
    joined = Regions.join([several, single])
    assert (joined.batch, joined.image.tolist()) == (9, [0, 2, 3, 4, 5, 6, 7, 8])
    close(joined.centre, torch.cat([several.centre, single.centre]))
