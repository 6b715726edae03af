"""Flat regions, decisions and states: gathered for any images, in any order, with repeats."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from glimpsezoo.core.batched import Batched, gather, select_rows
from glimpsezoo.core.noise import Noise
from glimpsezoo.core.regions import Decision, Regions

COUNTS = [2, 0, 3, 1, 0]
INDEX = torch.tensor([2, 4, 0, 2, 1, 3])


def regions() -> Regions:
    """Six regions of five images; every field has different values per region."""
    image = torch.arange(5).repeat_interleave(torch.tensor(COUNTS))
    number = torch.arange(len(image))
    return Regions(
        image=image,
        centre=torch.stack([number / 10, -number / 10], 1),
        scale=1 / (1 + number),
        level=number + 20,
        parent=number + 30,
        batch=5,
    )


def rows(given: Regions) -> list[list[tuple[float, ...]]]:
    """For every image of the batch, its regions in order."""
    fields = (given.centre[:, 0], given.centre[:, 1], given.scale, given.level, given.parent)
    table = list(zip(*(field.tolist() for field in fields), strict=True))
    return [[row for row, image in zip(table, given.image.tolist(), strict=True) if image == i] for i in range(given.batch)]


def test_single_regions_are_known_until_their_images_are_replaced() -> None:
    one = Regions.one_each(torch.rand(4, 2), 0.5)
    images = torch.rand(4, 1, 3, 3)
    assert one.single
    assert one.images_of(images) is images
    assert one.counts().tolist() == [1, 1, 1, 1]
    chosen = one.select(torch.tensor([3, 0, 3]))
    assert chosen.single
    assert torch.equal(chosen.centre, one.centre[[3, 0, 3]])
    moved = replace(one, image=torch.tensor([0, 0, 1, 3]))
    assert not moved.single
    assert torch.equal(moved.images_of(images), images[[0, 0, 1, 3]])
    assert moved.counts().tolist() == [2, 1, 0, 1]
    assert not one.keep(torch.tensor([True, False, True, True])).single


def test_regions_are_gathered_with_their_images() -> None:
    whole, taken = regions(), regions().select(INDEX)
    assert rows(taken) == [rows(whole)[i] for i in INDEX]
    assert taken.batch == 6
    assert len(taken) == sum(COUNTS[i] for i in INDEX)
    assert taken.counts().tolist() == [COUNTS[i] for i in INDEX]
    assert (taken.image.diff() >= 0).all()


def test_no_image_and_images_without_regions_can_be_gathered() -> None:
    assert len(regions().select(torch.tensor([1, 4, 1]))) == 0
    assert regions().select(torch.tensor([1, 4, 1])).counts().tolist() == [0, 0, 0]
    assert regions().select(torch.arange(0)).batch == 0


def test_kept_regions_leave_the_batch_as_it_is() -> None:
    kept = regions().keep(torch.tensor([True, False, False, True, True, False]))
    assert kept.counts().tolist() == [1, 0, 2, 0, 0]
    assert kept.level.tolist() == [20, 23, 24]
    assert kept.batch == 5


def test_rows_of_any_flat_layout_are_gathered_in_order() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        image = torch.randint(0, 7, (20,), generator=generator).sort().values
        index = torch.randint(0, 7, (9,), generator=generator)
        position, place = select_rows(image, 7, index)
        expected = [(row, i) for i, chosen in enumerate(index.tolist()) for row in range(20) if image[row] == chosen]
        assert list(zip(position.tolist(), place.tolist(), strict=True)) == expected


def test_one_region_for_every_image() -> None:
    each = Regions.one_each(torch.tensor([[0.1, 0.2], [0.3, 0.4]]), torch.tensor([0.5, 0.6]), level=2, parent=1)
    assert rows(each) == [[pytest.approx((0.1, 0.2, 0.5, 2, 1))], [pytest.approx((0.3, 0.4, 0.6, 2, 1))]]
    assert Regions.one_each(torch.zeros(2, 2), 0.25).scale.tolist() == [0.25, 0.25]
    assert rows(Regions.whole_image(torch.zeros(3, 1, 4, 4), level=1)) == [[(0.0, 0.0, 1.0, 1, -1)]] * 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"centre": torch.zeros(6, 3)},
        {"scale": torch.zeros(5)},
        {"level": torch.zeros(7, dtype=torch.long)},
        {"parent": torch.zeros(6, 1).long()},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_regions_whose_fields_disagree_are_refused(wrong: dict[str, Tensor]) -> None:
    with pytest.raises((ValueError, TypeError)):  # tensor signatures are checked in tests; the class has its own check as well
        replace(regions(), **wrong)


def test_what_all_images_share_is_in_memory_once_also_when_they_are_gathered() -> None:
    decision = Decision.certain(Regions.one_each(torch.rand(5, 2), 0.5, level=3, parent=2))
    for few in (decision, decision.select(torch.tensor([4, 0, 4]))):
        regions, count = few.regions, len(few.regions)
        for values, value in ((regions.scale, 0.5), (regions.level, 3), (regions.parent, 2), (regions.counts(), 1), (few.log_prob, 0)):
            assert values.tolist() == [value] * count
            assert values.untyped_storage().nbytes() == values.element_size()


def test_a_certain_decision_has_no_log_probability_or_entropy() -> None:
    decision = Decision.certain(regions())
    assert (decision.made, decision.log_prob.tolist(), decision.entropy.tolist()) == ("given", [0.0] * 5, [0.0] * 5)


class Pair(NamedTuple):
    left: Tensor
    right: Tensor


@dataclass(frozen=True, kw_only=True)
class Carried(Decision):
    """A `Batched` with every kind of field."""

    odds: Tensor
    pair: Pair
    cache: tuple[Tensor, ...]
    noise: Noise
    temperature: Tensor
    name: str
    nothing: None


def test_whatever_a_plugin_adds_is_gathered() -> None:
    odds = torch.arange(10).view(5, 2)
    whole = Carried(
        **vars(Decision.certain(regions())),
        odds=odds,
        pair=Pair(odds[:, 0], odds[:, 1]),
        cache=(odds, odds + 1),
        noise=Noise(torch.arange(5)),
        temperature=torch.tensor(0.5),
        name="x",
        nothing=None,
    )
    taken = whole.select(INDEX)
    assert torch.equal(taken.odds, odds[INDEX])
    assert isinstance(taken.pair, Pair)
    assert torch.equal(taken.pair.right, odds[INDEX, 1])
    assert isinstance(taken.cache, tuple)
    assert torch.equal(taken.cache[1], odds[INDEX] + 1)
    assert torch.equal(taken.noise.keys, INDEX)
    assert rows(taken.regions) == rows(regions().select(INDEX))
    assert taken.log_prob.shape == (6,)
    assert (taken.temperature, taken.name, taken.nothing, taken.made) == (torch.tensor(0.5), "x", None, "given")


@dataclass(frozen=True)
class Listed(Batched):
    cache: list[Tensor]


def test_a_list_of_tensors_is_refused_and_not_shared_by_mistake() -> None:
    with pytest.raises(TypeError, match="got a list"):
        Listed([torch.zeros(5)]).select(INDEX)
    with pytest.raises(TypeError, match="got a dict"):
        gather({"a": torch.zeros(5)}, INDEX)


def test_gradients_flow_through_a_gather() -> None:
    centre = torch.zeros(3, 2, requires_grad=True)
    Regions.one_each(centre, 0.5).select(torch.tensor([0, 2, 2])).centre.sum().backward()
    assert centre.grad is not None
    assert centre.grad[:, 0].tolist() == [1, 0, 2]
