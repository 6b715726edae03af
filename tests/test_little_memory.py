"""Where memory runs out, whatever looks at many images takes fewer at a time and finds the same. A batch size that was set is kept."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Answer, results
from glimpsezoo_mgnet.model import MGNet
from torch import Tensor

import glimpsezoo as gz
from glimpsezoo.data import Batch
from glimpsezoo.evaluation import ties
from glimpsezoo.evaluation.memory import Parts
from glimpsezoo.training.loop import calibration_accuracy

MOST = 2
FEW = ("pgd.steps=2", "masking.images=4", "smoothing.images=2", "smoothing.n=20", "smoothing.n0=5")
MEASURES = ("accuracy,anytime,pgd:16/255,smoothing:0.25", *(word for few in FEW for word in ("--set", few)))
CARD = str(Path(__file__).parents[1] / "zoo_cards" / "mgnet.digits")
WORDS = (CARD, "--limit", "6", "--json", "--fresh", "--force", "-o", "out")


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """MGNet has memory for `MOST` images; the sizes of its batches are noted."""
    found, plain = list[int](), MGNet.start

    def start(self: MGNet, images: Tensor, *more: Any) -> Any:
        found.append(len(images))
        if len(images) > MOST:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(self, images, *more)

    monkeypatch.setattr(MGNet, "start", start)
    monkeypatch.setattr(ties, "CHUNK", 1)
    return found


def test_the_slices_cover_all_images_and_get_smaller_where_memory_runs_out() -> None:
    tried = list[tuple[int, int]]()

    def do(part: slice) -> int:
        tried.append((part.start, part.stop))
        if part.stop - part.start > 3:
            raise MemoryError
        return part.stop - part.start

    assert [*(parts := Parts(8)).over(9, do)] == [2, 2, 2, 2, 1]
    assert tried == [(0, 8), (0, 4), (0, 2), (2, 4), (4, 6), (6, 8), (8, 9)]
    assert parts.size == 2
    with pytest.raises(MemoryError):
        [*Parts(8, fixed=True).over(9, do)]
    with pytest.raises(ZeroDivisionError):
        [*Parts(8).over(9, lambda _: 1 // 0)]


def test_every_measure_finds_the_same_with_little_memory(run: Callable[..., Answer], request: pytest.FixtureRequest) -> None:
    (whole,) = results(run(*WORDS, "--measure", *MEASURES))
    sizes = request.getfixturevalue("sizes")
    (found,) = results(run(*WORDS, "--measure", *MEASURES))
    assert max(sizes) > MOST
    assert found.masking is not None
    assert found.anytime is not None
    assert set(found.masking.checks) > {"gradient", "margin", "huge_eps", "black_box"}
    assert (found.masking, found.smoothing) == (whole.masking, whole.smoothing)
    tops = [[each.top1 for each in (*result.attacks, *result.anytime.curve)] for result in (found, whole) if result.anytime]
    assert tops[0] == tops[1]


def test_the_calibration_of_a_training_does_not_end_it(sizes: list[int]) -> None:
    model = gz.create_model("mgnet", task=gz.Task((32, 32), 1, ("a", "b", "c")), glimpses=2, backbone="cnn4", downsample=2)
    images, ids = torch.rand(5, 1, 32, 32), torch.arange(5)
    batch = Batch(images=images, labels=ids % 3, ids=ids, groups=ids)
    found = calibration_accuracy(model, [batch], torch.device("cpu"))
    assert max(sizes) == 5
    alone = [gz.rollout(model.eval(), images[k : k + 1]).logits.argmax(1).item() for k in range(5)]
    assert found == sum(top == label for top, label in zip(alone, (ids % 3).tolist(), strict=True)) / 5


def test_a_batch_size_that_was_set_is_kept(run: Callable[..., Answer], sizes: list[int]) -> None:
    assert run(*WORDS, "--batch-size", "2", "--measure", *MEASURES).status == 0
    assert max(sizes) == 2
    sizes.clear()
    answer = run(*WORDS, "--batch-size", "4", "--measure", *MEASURES)
    assert (answer.status, "expected enough memory, got none left" in answer.err, set(sizes)) == (2, True, {4}), answer
