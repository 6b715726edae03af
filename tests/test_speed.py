"""The times of a model: which images are timed, and that an accelerator is waited for."""

from typing import Any

import pytest
import torch
from toy_evaluation import MadeUp, model_of
from toy_models import TASK, Peek

from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.measures import speed
from glimpsezoo.measures.speed import seconds_of, speed_section
from glimpsezoo.run import work


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The images of every batch that was timed."""
    found: list[torch.Tensor] = []

    def note(model: Any, images: torch.Tensor, **_: object) -> None:
        found.append(images)

    monkeypatch.setattr(speed, "rollout", note)
    monkeypatch.setattr(speed, "REPEATS", 2)
    return found


def test_the_next_image_takes_the_place_of_one_that_cannot_be_read(timed: list[torch.Tensor]) -> None:
    bad = (0, 1, 2, 5)
    found = speed_section(model_of(Peek), MadeUp(bad=bad), None, sizes=(1, 4, 64), on_bad_image="skip")
    assert [each.batch for each in found.batches] == [1, 4, 29]
    good = MadeUp().images[[place for place in range(33) if place not in bad]]
    assert all(torch.equal(images, good[: len(images)]) for images in timed)


def test_without_an_image_that_can_be_read_nothing_is_timed(timed: list[torch.Tensor]) -> None:
    with pytest.raises(GlimpseZooError, match="row 0 is no image"):
        speed_section(model_of(Peek), MadeUp(bad=(0,)), None)
    with pytest.raises(GlimpseZooError, match="expected images that can be read, got none among 33: mend the data"):
        speed_section(model_of(Peek), MadeUp(bad=tuple(range(33))), None, on_bad_image="skip")
    assert not timed


def test_an_accelerator_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: order.append(f"waited for {device}"))
    assert seconds_of(lambda: order.append("worked"), torch.device("cuda")) > 0
    assert order == ["worked", "waited for cuda"]
    seconds_of(lambda: order.append("worked"), torch.device("cpu"))
    assert order[2:] == ["worked"]


def test_the_estimate_of_a_run_is_timed_in_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([9.0, 6.4, 7.0])
    monkeypatch.setattr(work, "seconds_of", lambda work, device: next(times))
    assert work.seconds_per_image(model_of(Peek), TASK, torch.device("cpu")) == pytest.approx(0.1)
