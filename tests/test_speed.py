"""The times of a model: what is timed, on which images, and what early exits gain; the memory that it takes."""

import io
from typing import Any

import pytest
import torch
from rich.console import Console
from test_records import RESULT
from toy_evaluation import MadeUp, job_of, model_of
from toy_models import TASK, Peek

from glimpsezoo.core.exits import Confidence
from glimpsezoo.core.rollout import Trace
from glimpsezoo.core.stream import RolloutStream
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.evaluation.measuring import run_job
from glimpsezoo.measures import speed, stopwatch
from glimpsezoo.measures.base import Update
from glimpsezoo.measures.result import Result
from glimpsezoo.measures.shown import Entry
from glimpsezoo.measures.speed import SpeedMeasure, SpeedSettings, speed_section
from glimpsezoo.measures.stopwatch import peak_memory, seconds_of, threads
from glimpsezoo.reports.table import board, print_results
from glimpsezoo.run import timing
from glimpsezoo.zoo.results import result_type

RULE = Confidence(0.8)  # some images exit at the first step of `Peek`, some never
CPU = torch.device("cpu")


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The rollouts that were timed: their images, options, and how many regions the model sensed."""
    found: list[dict[str, Any]] = []
    real = speed.rollout

    def noted(model: Any, images: torch.Tensor, **options: Any) -> Trace:
        before = model.asked["sense"]
        trace = real(model, images, **options)
        if "record" not in options:  # not one that is counted
            found.append({"images": images, "sensed": model.asked["sense"] - before, **options})
        return trace

    monkeypatch.setattr(speed, "rollout", noted)
    return found


def test_every_round_has_other_images_in_turn_without_those_that_cannot_be_read(timed: list[dict[str, Any]]) -> None:
    bad = (0, 1, 2, 5)
    found = speed_section(model_of(Peek), MadeUp(bad=bad), None, SpeedSettings(batches=(40, 3), repeats=2), on_bad_image="skip")
    assert [(each.batch, each.exits) for each in found.batches] == [(40, "none"), (3, "none")]
    good = MadeUp().images[[place for place in range(33) if place not in bad]]
    for size, rounds in ((40, 4), (3, 24)):  # with two that do not count, and 64 images at least
        seen = torch.cat([each["images"] for each in timed if len(each["images"]) == size][:rounds])
        assert torch.equal(seen, good.repeat(6, 1, 1, 1)[: size * rounds])


def test_without_an_image_that_can_be_read_nothing_is_timed(timed: list[dict[str, Any]]) -> None:
    with pytest.raises(GlimpseZooError, match="row 0 is no image"):
        speed_section(model_of(Peek), MadeUp(bad=(0,)), None)
    with pytest.raises(GlimpseZooError, match="expected images that can be read, got none among 33: mend the data"):
        speed_section(model_of(Peek), MadeUp(bad=tuple(range(33))), None, on_bad_image="skip")
    assert not timed


def test_images_that_exit_leave_the_batch_or_stay_in_it_and_each_way_comes_first_in_turn(timed: list[dict[str, Any]]) -> None:
    found = speed_section(model_of(Peek), MadeUp(), RULE, SpeedSettings(batches=(33,), repeats=4))
    assert [each.exits for each in found.batches] == ["none", "leave", "stay", "join"]
    assert found.exit_rule is not None
    assert (found.exit_rule.rule, found.exit_rule.threshold) == ("confidence", 0.8)
    ways = ["none" if each["exit_rule"] is None else "leave" if each["compact"] else "stay" for each in timed]
    assert {way: {each["sensed"] for each, mine in zip(timed, ways, strict=True) if mine == way} for way in set(ways)} == {
        "none": {4 * 33},
        "leave": {sum(run_job(job_of(exit_rule=RULE)).rows.exit_step)},
        "stay": {4 * 33},
    }
    assert {tuple(ways[first : first + 3]) for first in range(0, 18, 3)} == {
        ("none", "leave", "stay"),
        ("leave", "stay", "none"),
        ("stay", "none", "leave"),
    }


def test_those_that_are_left_join_those_of_other_batches_and_every_image_ends_within_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    streams: list[tuple[int, Any]] = []

    class Noted(RolloutStream):
        def add(self, images: torch.Tensor) -> Any:
            streams.append((len(images), self))
            return super().add(images)

        def finish(self) -> Any:
            streams.append((0, self))
            return super().finish()

    monkeypatch.setattr(speed, "RolloutStream", Noted)
    found = speed_section(model_of(Peek), MadeUp(), RULE, SpeedSettings(batches=(32, 1), repeats=3))
    assert [(each.batch, each.exits) for each in found.batches if each.exits == "join"] == [(32, "join")]  # a single image has none to join
    timed = [size for size, stream in streams if stream is streams[0][1]]
    assert timed == [32, 32, 0, 32, 32, 32, 0]  # those of the warm-up are done before the others come


def test_what_exits_gain_is_their_throughput_beside_the_macs_of_the_same_images() -> None:
    whole, early = (run_job(job_of(**rule)).rows.macs.sum() for rule in ({}, {"exit_rule": RULE}))
    none, *others = speed_section(model_of(Peek), MadeUp(), RULE, SpeedSettings(batches=(33,), repeats=3)).batches
    assert none.gain is None
    for each in others:
        assert each.gain is not None
        assert each.gain.macs == pytest.approx(whole / early)
        assert each.gain.time == pytest.approx(each.images_per_s / none.images_per_s)
        assert each.gain.share == pytest.approx(each.gain.time / each.gain.macs)


def test_times_are_the_median_the_quartiles_and_all_images_over_all_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([9.0, 9.0, *(64 * [0.001, 0.003])])  # two do not count
    monkeypatch.setattr(speed, "seconds_of", lambda work, device: next(seconds))
    (found,) = speed_section(model_of(Peek), MadeUp(), None, SpeedSettings(batches=(2,), repeats=128)).batches
    assert (found.median_ms, found.iqr_ms) == (pytest.approx(2), pytest.approx(2))
    assert found.images_per_s == pytest.approx(2 / 0.002)


def test_operations_without_a_formula_leave_the_gain_open() -> None:
    class Fourier(Peek):
        def sense(self, images: torch.Tensor, state: Any, regions: Any) -> torch.Tensor:
            return super().sense(torch.fft.fft2(images).real, state, regions)

    found = speed_section(model_of(Fourier), MadeUp(), RULE, SpeedSettings(batches=(2,), repeats=2))
    assert [each.gain for each in found.batches] == [None] * 4


def test_threads_are_those_that_were_asked_for_and_afterwards_those_of_before() -> None:
    before = torch.get_num_threads()
    found = speed_section(model_of(Peek), MadeUp(), None, SpeedSettings(batches=(64,), repeats=2, threads=before + 1))
    assert found.threads == before + 1
    assert torch.get_num_threads() == before
    with threads(None):
        assert torch.get_num_threads() == before


def test_an_accelerator_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: order.append(f"waited for {device}"))
    assert seconds_of(lambda: order.append("worked"), torch.device("cuda")) > 0
    assert order == ["waited for cuda", "worked", "waited for cuda"]  # what was asked for before is no part of it
    monkeypatch.setattr(torch.mps, "synchronize", lambda: order.append("waited for mps"))
    seconds_of(lambda: order.append("worked"), torch.device("mps"))
    assert order[3:] == ["waited for mps", "worked", "waited for mps"]
    seconds_of(lambda: order.append("worked"), torch.device("cpu"))
    assert order[6:] == ["worked"]


def test_the_estimate_of_a_run_is_timed_in_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([9.0, 6.4, 7.0])
    monkeypatch.setattr(timing, "seconds_of", lambda work, device: next(times))
    assert timing.seconds_per_image(model_of(Peek), TASK, torch.device("cpu")) == pytest.approx(0.1)


# Memory


def test_peak_memory_is_what_comes_on_top_also_where_freed_memory_is_used_again() -> None:
    held = torch.ones(1 << 22)
    if peak_memory(lambda: None, CPU) is None:
        pytest.skip("this system does not tell")
    for mebibytes in (64, 16, 16, 16):
        peak = peak_memory(lambda size=mebibytes: torch.ones(size << 18), CPU)
        assert peak is not None
        assert mebibytes <= peak / (1 << 20) + 1 < mebibytes + 4
    assert held.sum() == 1 << 22


def test_where_nothing_can_tell_there_is_no_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    assert peak_memory(lambda: None, torch.device("mps")) is None
    monkeypatch.setattr(stopwatch, "_reset_resident", lambda: None)
    found = speed_section(model_of(Peek), MadeUp(), None, SpeedSettings(batches=(64,), repeats=2))
    assert (found.peak_memory, found.batches[0].peak_memory) == (None, None)
    monkeypatch.undo()
    monkeypatch.setattr(stopwatch.Path, "write_text", lambda *_: (_ for _ in ()).throw(PermissionError))
    assert peak_memory(lambda: None, CPU) is None


def test_on_a_gpu_the_peak_is_of_torch_s_tensors_beyond_those_before(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: order.append("reset"))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 100)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 140)
    assert peak_memory(lambda: order.append("worked"), torch.device("cuda")) == 40
    assert order == ["reset", "worked"]


# What people read


def measured(name: str = "mgnet") -> Result:
    def batch(size: int, exits: str, **more: Any) -> dict[str, Any]:
        times = {"median_ms": 2.5, "iqr_ms": 0.25, "images_per_s": 400 * size}
        return {"batch": size, "exits": exits, **times, "peak_memory": 5_400_000, **more}

    gain = {"time": 1.5, "macs": 2.0, "share": 0.75}
    batches = [batch(size, exits, gain=gain if exits == "leave" else None) for size in (1, 32) for exits in ("none", "leave")]
    rule = {"rule": "confidence", "threshold": 0.91}
    section = {"device": "cpu: Some processor", "threads": 2, "exit_rule": rule, "batches": batches, "peak_memory": None}
    return result_type().model_validate({**RESULT, "model": {**RESULT["model"], "name": name}, "speed": section})


def test_a_terminal_has_a_row_per_size_and_variant_below_the_table() -> None:
    console = Console(file=io.StringIO(), width=100, highlight=False)
    print_results([measured("pyramid-imagenet-m1.imagenet100-cmc.a-long-variant.28"), measured("cnn4")], console)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= 100
    rows = [line.split() for line in lines if line.startswith("cnn4") and ("none" in line or "leave" in line)]
    assert rows == [
        ["cnn4", "1", "none", "2.50", "0.25", "400", "5.4"],
        ["cnn4", "1", "leave", "2.50", "0.25", "400", "5.4", "1.50", "2.00", "0.75"],
        ["cnn4", "32", "none", "2.50", "0.25", "12800", "5.4"],
        ["cnn4", "32", "leave", "2.50", "0.25", "12800", "5.4", "1.50", "2.00", "0.75"],
    ]
    text = " ".join(" ".join(lines).split())
    assert "cpu: Some processor, 2 threads" in text
    assert "cnn4 exits by confidence 0.91" in text


def test_the_leaderboard_the_page_and_the_card_have_the_times() -> None:
    result = measured()
    table = board([Entry("mgnet", result)])
    shown = dict(zip(table.headings, (cell.text for cell in table.rows[0]), strict=True))
    assert shown["ms, batch 1"] == "2.50"
    assert shown["images/s"] == shown["images/s, early exits"] == "12800"
    assert shown["gain in time / in MACs"] == "0.75"
    (page,) = SpeedMeasure.tables([Entry("mgnet at home", result)])["Speed"]
    assert {row[0].text for row in page.rows} == {"mgnet at home"}
    heading, card = SpeedMeasure.card_text(result)
    assert heading == "### Speed"
    assert len(card.rows) == 4  # type: ignore[union-attr]


def test_a_card_does_not_lose_a_size_that_was_timed() -> None:
    known, update = measured().speed, Update(model_of(Peek), baseline=False, published=False)

    def lost(*sizes: int) -> list[str]:
        measure = SpeedMeasure.__new__(SpeedMeasure)
        measure.settings = SpeedSettings(batches=sizes)
        return list(measure.lost(known, update))

    assert lost(1, 32, 256) == []
    assert lost(256) == ["the times of batches of 1, 32"]
