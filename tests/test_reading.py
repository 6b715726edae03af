"""Units that follow each other are read by the same worker processes, which decode ahead, and no image is decoded for nothing."""

import os
from multiprocessing import active_children
from pathlib import Path

import pytest
from command_line import ask, photos
from toy_evaluation import MadeUp

from glimpsezoo.data import images
from glimpsezoo.data.base import Example
from glimpsezoo.evaluation import jobs
from glimpsezoo.evaluation.reading import Loading, Reader

HOW = Loading(batch_size=2, workers=1, on_bad_image="fail")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "UNIT", 4)


class Logged(MadeUp):
    """Notes which process reads which image."""

    def __init__(self, log: Path) -> None:
        super().__init__()
        self.log = log

    def __getitem__(self, index: int) -> Example:
        with self.log.open("a") as file:
            print(os.getpid(), index, file=file)
        return super().__getitem__(index)

    def reads(self) -> list[tuple[str, int]]:
        return [(process, int(index)) for process, index in (line.split() for line in self.log.read_text().splitlines())]


@pytest.fixture
def data(tmp_path: Path) -> Logged:
    return Logged(tmp_path / "log")


def read(reader: Reader, data: Logged, start: int, how: Loading = HOW) -> list[int]:
    """The places of the images of one unit."""
    stop = min(start + jobs.UNIT, len(data))
    return [(each - 1000) // 7 for batch in reader.unit(data, start, stop, how, until=stop) for each in batch.ids.tolist()]


def test_consecutive_units_share_a_worker_which_ends_with_the_data(data: Logged) -> None:
    reader = Reader(ahead=True)
    for start in range(0, len(data), jobs.UNIT):
        assert read(reader, data, start) == list(range(start, min(start + jobs.UNIT, len(data))))
    assert len({process for process, _ in data.reads()}) == 1
    assert [index for _, index in data.reads()] == list(range(len(data)))
    assert not active_children()


def test_without_ahead_nothing_beyond_a_unit_is_read(data: Logged) -> None:
    read(Reader(), data, 4)
    assert [index for _, index in data.reads()] == [4, 5, 6, 7]


def test_where_others_take_units_only_the_first_ones_are_read_for_nothing(data: Logged) -> None:
    reader = Reader(ahead=True)
    assert read(reader, data, 0) == [0, 1, 2, 3]
    data.log.unlink()  # what was decoded ahead is known to be lost only now
    for start in (8, 16):
        assert read(reader, data, start) == list(range(start, start + 4))
    assert [index for _, index in data.reads() if index >= 8] == [8, 9, 10, 11, 16, 17, 18, 19]


@pytest.mark.parametrize("change", ["data", "batch size"])
def test_other_data_or_another_way_get_a_loader_of_their_own(data: Logged, change: str, tmp_path: Path) -> None:
    reader, other = Reader(ahead=True), Logged(tmp_path / "other")
    read(reader, data, 0)
    if change == "data":
        assert read(reader, other, 4) == [4, 5, 6, 7]
        assert [index for _, index in other.reads()][:4] == [4, 5, 6, 7]
    else:
        assert read(reader, data, 4, HOW._replace(batch_size=3)) == [4, 5, 6, 7]
    assert len(active_children()) == 1
    reader.close()
    assert not active_children()


def test_a_unit_that_was_abandoned_is_read_from_its_start(data: Logged) -> None:
    reader = Reader(ahead=True)
    for _ in reader.unit(data, 0, 4, HOW, until=4):
        break
    assert read(reader, data, 0) == [0, 1, 2, 3]


def test_a_run_decodes_all_units_in_the_same_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "photos")
    log, plain = tmp_path / "decoded", images.decode

    def logging(row: object, *given: object) -> object:
        with log.open("a") as file:
            print(os.getpid(), file=file)
        return plain(row, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(images, "decode", logging)
    words = ("--checkpoint", "none", "--data", "folder:photos", "--set", "data.size=16", "--measure", "accuracy", "--workers", "1")
    assert ask(capsys, "run", "cnn4", *words).status == 0
    readers = log.read_text().split()
    assert len(readers) == 10  # in three units
    assert len(set(readers)) == 1
    assert not active_children()
