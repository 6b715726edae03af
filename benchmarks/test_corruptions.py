"""The benchmark's 15 corruptions at 224 px, severity 3, against the distribution imagecorruptions-imaug on the same cores.

    pytest benchmarks/test_corruptions.py -s

The peer corrupts one image after another, because it has no batches. Ours corrupts a batch, including everything that evaluations need:
splitting into pieces, rounding to 8 bits, and one seed per image. Both get the same images, all different: a processor learns the branches
of one JPEG by heart and then decodes it in half the time. The peer's are bytes, ours are floats, as evaluations have them. Both may use all
cores. Turns alternate, and the shortest turn of each side counts. The machine should have no other load.
"""

import os
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_image

from glimpsezoo.conditions.corruptions.catalogue import BENCHMARK
from glimpsezoo.conditions.corruptions.condition import Corruption

peer = pytest.importorskip("imagecorruptions")

SHORT = "GLIMPSEZOO_SHORT" in os.environ  # one turn, to check that it runs: times on a busy machine mean nothing
SIDE, SEVERITY = 224, 3
BATCH, TURNS = (2, 1) if SHORT else (16, 9)
OVERALL, EACH = 5.0, 1 / 1.3  # least ratio of the peer's time to ours: over all corruptions, and for each


@pytest.fixture(scope="module")
def levels() -> np.ndarray:
    """Parts of two photographs, [BATCH, SIDE, SIDE, 3]."""
    photographs = [load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    return np.stack([photographs[k % 2][10 * k : 10 * k + SIDE, 20 * k : 20 * k + SIDE] for k in range(BATCH)])


def ours(name: str, levels: np.ndarray) -> Callable[[], object]:
    images = (torch.from_numpy(levels).permute(0, 3, 1, 2).float() / 255).contiguous()
    spec = next(spec for spec in BENCHMARK if spec.name == name)
    corruption, ids, labels = Corruption(spec, SEVERITY, (SIDE, SIDE)), torch.arange(BATCH), torch.zeros(BATCH, dtype=torch.long)
    return lambda: corruption.apply(images, labels, ids, None)  # type: ignore[arg-type]


def theirs(name: str, levels: np.ndarray) -> Callable[[], object]:
    return lambda: [peer.corrupt(image, severity=SEVERITY, corruption_name=name) for image in levels]


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@pytest.mark.benchmark(group="corruptions")
@pytest.mark.parametrize("name", [spec.name for spec in BENCHMARK])
def test_corruption(benchmark: Callable[..., object], name: str, levels: np.ndarray) -> None:
    """Time of one batch."""
    benchmark(ours(name, levels))


def test_against_the_peer(levels: np.ndarray) -> None:
    spent: dict[str, tuple[float, float]] = {}
    for spec in BENCHMARK:
        mine, others = ours(spec.name, levels), theirs(spec.name, levels)
        seconds(mine)  # warm-up: tables are built and code is compiled once
        seconds(others)
        turns = [(seconds(mine) / BATCH, seconds(others) / BATCH) for _ in range(TURNS)]
        spent[spec.name] = (min(turn[0] for turn in turns), min(turn[1] for turn in turns))
    total = tuple(sum(times) for times in zip(*spent.values(), strict=True))
    for name, (mine_s, peer_s) in {**spent, "all": total}.items():
        print(f"{name:20} {1e3 * mine_s:7.2f} ms per image, peer {1e3 * peer_s:7.2f}: {peer_s / mine_s:5.1f} x")
    ratios = {name: peer_s / mine_s for name, (mine_s, peer_s) in spent.items()}
    assert SHORT or total[1] / total[0] >= OVERALL
    assert SHORT or min(ratios.values()) >= EACH, ratios
