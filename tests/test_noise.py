"""Noise per image: the same bits in any batch, uniform, and independent across seeds, images, steps and lanes."""

import pytest
import torch
from scipy import stats
from torch import Tensor

from glimpsezoo.core.noise import Noise

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
FACTORS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
IDS = torch.arange(20_000)


# The same generator with Python's integers, and its inverse


def mix(x: int) -> int:
    x = (x ^ x >> 30) * FACTORS[0] & MASK
    x = (x ^ x >> 27) * FACTORS[1] & MASK
    return x ^ x >> 31


def combine(key: int, value: int) -> int:
    return mix(mix(key + GOLDEN & MASK) ^ value * GOLDEN & MASK)


def unshift(x: int, bits: int) -> int:
    """The y with x = y ^ (y >> bits)."""
    y = x
    for _ in range(64 // bits):
        y = x ^ y >> bits
    return y


def unmix(x: int) -> int:
    x = unshift(x, 31) * pow(FACTORS[1], -1, 1 << 64) & MASK
    x = unshift(x, 27) * pow(FACTORS[0], -1, 1 << 64) & MASK
    return unshift(x, 30)


def uncombine(mixed: int, value: int) -> int:
    return unmix(unmix(mixed) ^ value * GOLDEN & MASK) - GOLDEN & MASK


def signed(x: int) -> int:
    return x - (1 << 64) if x >> 63 else x


def test_draws_are_those_of_the_generator_in_plain_integers() -> None:
    for seed, image, step, lane in [(0, 0, 1, 0), (3, 12, 2, 5), (-1, 2**40, 7, 21), (2**62, 5, 2**20, 4**7)]:
        got = Noise.of(seed, torch.tensor([image])).fork(9).uniform(step, 3, lane=lane)[0]
        key = combine(combine(combine(mix(combine(seed & MASK, image)), 9), step), lane)
        expected = [((combine(key, i) >> 41) + 0.5) / 2**23 for i in range(3)]
        assert got.tolist() == expected  # float32 holds them exactly


@pytest.mark.parametrize("bits", [0, MASK])
def test_no_draw_is_0_or_1(bits: int) -> None:
    """The inverse finds keys that give the smallest and the largest possible draw."""
    key = uncombine(uncombine(uncombine(bits, 0), 5), 3)
    draw = Noise(torch.tensor([signed(key)])).uniform(3, 1, lane=5)
    assert draw.dtype == torch.float32
    assert (draw < 1e-6) if bits == 0 else (draw > 1 - 1e-6)
    assert 0 < draw.item() < 1


# In any batch


def test_an_image_has_the_same_noise_in_any_batch_in_any_order() -> None:
    ids = torch.tensor([5, 900, -3, 17])
    draws = Noise.of(3, ids).uniform(2, 6)
    assert draws.shape == (4, 6)
    for i in range(4):
        assert torch.equal(Noise.of(3, ids[i : i + 1]).uniform(2, 6)[0], draws[i])
    index = torch.tensor([3, 0, 0, 2])
    assert torch.equal(Noise.of(3, ids).select(index).uniform(2, 6), draws[index])
    assert torch.equal(Noise.of(3, ids[index]).uniform(2, 6), draws[index])


def test_ids_of_any_integer_type_are_the_same_ids() -> None:
    ids = torch.arange(10)
    assert torch.equal(Noise.of(5, ids.int()).keys, Noise.of(5, ids).keys)
    assert torch.equal(Noise.of(5, ids.short()).keys, Noise.of(5, ids).keys)


def test_asking_for_more_draws_leaves_the_first_ones() -> None:
    noise = Noise.of(0, torch.arange(5))
    assert torch.equal(noise.uniform(1, 7)[:, :3], noise.uniform(1, 3))


def test_rows_of_an_image_are_told_apart_by_lane_and_by_nothing_else() -> None:
    noise = Noise.of(0, torch.arange(5))
    image, lane = torch.tensor([0, 0, 2, 4, 4]), torch.tensor([1, 7, 7, 1, 1])
    rows = noise.uniform(3, 4, image=image, lane=lane)
    assert torch.equal(rows[3], rows[4])
    assert not torch.isclose(rows[0], rows[1]).any()
    for row, (i, one) in enumerate(zip(image.tolist(), lane.tolist(), strict=True)):
        assert torch.equal(rows[row], noise.select(torch.tensor([i])).uniform(3, 4, lane=one)[0])
    assert torch.equal(noise.uniform(3, 4, image=torch.tensor([4]), lane=0)[0], noise.uniform(3, 4)[4])


# Uniform and independent: seeds, images, steps and lanes each give a table of streams [samples, streams]

STREAMS = {
    "ids": lambda: torch.stack([Noise.of(0, IDS + 20_000 * k).uniform(1, 1)[:, 0] for k in range(8)], 1),
    "neighbouring ids": lambda: torch.stack([Noise.of(0, IDS + k).uniform(1, 1)[:, 0] for k in range(8)], 1),
    "seeds": lambda: torch.stack([Noise.of(seed, IDS).uniform(1, 1)[:, 0] for seed in range(8)], 1),
    "steps": lambda: torch.stack([Noise.of(0, IDS).uniform(step, 1)[:, 0] for step in range(8)], 1),
    "lanes": lambda: torch.stack([Noise.of(0, IDS).uniform(1, 1, lane=lane)[:, 0] for lane in range(8)], 1),
    "sizes": lambda: Noise.of(0, IDS).uniform(1, 8),
    "forks": lambda: torch.cat([Noise.of(0, IDS).uniform(1, 1), *(Noise.of(0, IDS).fork(k).uniform(1, 1) for k in range(7))], 1),
    "forks of forks": lambda: torch.stack([Noise.of(0, IDS).fork(k).fork(j).uniform(1, 1)[:, 0] for k in range(3) for j in range(3)], 1),
    "one image": lambda: Noise.of(0, torch.tensor([0])).uniform(1, 80_000).view(-1, 4),
    "one image's steps": lambda: torch.cat([Noise.of(0, torch.tensor([0])).uniform(step, 4) for step in range(1500)]),
    "one image's lanes": lambda: Noise.of(0, torch.tensor([0])).uniform(1, 4, image=torch.zeros_like(IDS), lane=IDS),
}


@pytest.fixture(params=STREAMS, scope="module")
def streams(request: pytest.FixtureRequest) -> Tensor:
    return STREAMS[request.param]()


def test_draws_are_uniform(streams: Tensor) -> None:
    for stream in streams.unbind(1):
        assert stats.kstest(stream.double().numpy(), "uniform").pvalue > 1e-4
    assert stats.kstest(streams.double().flatten().numpy(), "uniform").pvalue > 1e-4


def test_streams_are_uncorrelated(streams: Tensor) -> None:
    count = len(streams)
    correlation = torch.corrcoef(streams.double().T) - torch.eye(streams.shape[1])
    assert correlation.abs().max() < 5 / count**0.5
    following = torch.corrcoef(torch.stack([streams[:-1, 0].double(), streams[1:, 0].double()]))[0, 1]
    assert following.abs() < 5 / count**0.5


def test_pairs_of_streams_fill_the_square(streams: Tensor) -> None:
    """Correlation only detects linear dependence; 16 x 16 bins detect any dependence of two streams."""
    for other in range(1, streams.shape[1]):
        box = (streams[:, 0] * 16).long() * 16 + (streams[:, other] * 16).long()
        assert stats.chisquare(box.bincount(minlength=256).numpy()).pvalue > 1e-4


def test_no_two_images_share_a_key() -> None:
    keys = torch.cat([Noise.of(seed, IDS).keys for seed in range(5)] + [Noise.of(0, IDS).fork(k).keys for k in range(5)])
    assert len(keys.unique()) == len(keys)


def test_normal_draws_are_normal_and_rise_with_the_uniform_ones() -> None:
    noise = Noise.of(0, IDS)
    draws = noise.normal(1, 2)
    assert stats.kstest(draws.double().flatten().numpy(), "norm").pvalue > 1e-4
    assert torch.equal(draws[:, 0].argsort(), noise.uniform(1, 2)[:, 0].argsort())
    assert torch.equal(noise.normal(1, 3, lane=4)[:, :2], noise.normal(1, 2, lane=4))
    assert not torch.isclose(noise.normal(1, 2, lane=4), draws).all(1).any()
