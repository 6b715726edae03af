"""A disk that fills up, becomes read-only or vanishes in the middle of a run or a training: one line, and the same command goes on."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import RECIPE, TINY, Answer, ask, photo_card, photos

from glimpsezoo.evaluation import jobs
from glimpsezoo.evaluation.store import UnitStore

Mount = Callable[[Path, str], None]


@pytest.fixture
def mount() -> Iterator[Mount]:
    """Mounts a small disk on a folder, or changes one that is mounted."""
    mounted = list[Path]()

    def make(folder: Path, options: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        what = f"remount,{options}" if folder in mounted else options
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", what, "tmpfs", folder], check=False, capture_output=True)
        if done.returncode:
            pytest.skip("this user may not mount a disk")
        mounted.append(folder)

    if shutil.which("mount") is None:
        pytest.skip("there is no 'mount'")
    yield make
    for folder in set(mounted):
        subprocess.run(["umount", "-l", folder], check=False)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A card of photographs; its test split has seven units."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jobs, "UNIT", 10)
    photos(tmp_path / "photos", per_class=35, side=12, split="test")
    photos(tmp_path / "photos", per_class=2, side=12, split="train")
    photo_card(Path("zoo_cards/small"), size=12)
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    return lambda *words: ask(capsys, "run", "small", "--measure", "accuracy", *words)


def only_line(answer: Answer) -> str:
    """The line that ends a command, behind what it announced."""
    assert answer.status == 2, answer.err
    assert "Traceback" not in answer.err
    return answer.err.splitlines()[-1]


def after_units(monkeypatch: pytest.MonkeyPatch, count: int, do: Callable[[], Any]) -> None:
    """Do something when so many units are written."""
    real, written = UnitStore.write, list[str]()

    def write(self: UnitStore, *given: Any) -> None:
        real(self, *given)
        written.append(given[0])
        if len(written) == count:
            do()

    monkeypatch.setattr(UnitStore, "write", write)


def test_a_full_disk_of_units_asks_for_room_and_what_is_finished_stays(here: Path, mount: Mount, run: Callable[..., Answer]) -> None:
    place = here / "runs/.units"
    mount(place, "size=40k")
    line = only_line(run("-o", "out"))
    assert "full disk" in line
    assert "make room" in line
    assert "--store" in line
    finished = sorted(place.glob("*.parquet"))
    assert 1 <= len(finished) < 7
    assert not [*place.glob(".*.part"), *place.glob("claims/*"), *Path("out").glob("*/result.json")]
    moved = shutil.copytree(place, here / "elsewhere")  # the advice
    assert f"{7 - len(finished)} units measured, {len(finished)} reused" in run("--store", moved, "-o", "moved").err
    mount(place, "size=1m")
    assert f"units measured, {len(finished)} reused" in run("-o", "out").err


def test_a_disk_of_units_that_becomes_read_only_is_one_line(
    here: Path, mount: Mount, run: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    mount(here / "shared", "size=1m")
    with monkeypatch.context() as patch:
        after_units(patch, 2, lambda: mount(here / "shared", "ro"))
        line = only_line(run("--store", "shared"))
    assert "can be written, got 'shared'" in line
    mount(here / "shared", "rw")
    assert "5 units measured, 2 reused" in run("--store", "shared").err


def test_a_folder_of_units_that_vanishes_is_made_again(here: Path, run: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch) -> None:
    after_units(monkeypatch, 2, lambda: shutil.rmtree(here / "shared"))
    assert "7 units measured" in run("--store", "shared").err
    assert len([*(here / "shared").glob("*.parquet")]) == 5


@pytest.mark.parametrize("option", ["-o", "--update-card"])
def test_a_full_disk_of_results_is_one_line_and_the_units_stay(here: Path, mount: Mount, run: Callable[..., Answer], option: str) -> None:
    if option == "-o":
        mount(here / "out", "size=4k")
        words: tuple[str, ...] = ("-o", "out")
    else:
        kept = shutil.copytree("zoo_cards/small", here / "copy")
        size = sum(-(-path.stat().st_size // 4096) * 4096 for path in kept.iterdir())
        mount(here / "zoo_cards/small", f"size={size + 4096}")
        shutil.copytree(kept, "zoo_cards/small", dirs_exist_ok=True)
        words = ("--update-card",)
    before = {path.name for path in Path("zoo_cards/small").iterdir()}
    line = only_line(run(*words))
    assert "make room, or choose another --output" in line
    assert not [*Path("out").rglob("*.part"), *Path("zoo_cards").rglob("*.part")]
    assert {path.name for path in Path("zoo_cards/small").iterdir()} == before
    mount(here / ("out" if option == "-o" else "zoo_cards/small"), "size=4m")
    assert "0 units measured, 7 reused" in run(*words).err


def test_a_full_home_stops_no_run(here: Path, mount: Mount, run: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch) -> None:
    mount(here / "home", "size=4k")
    (here / "home/ballast").write_bytes(bytes(4096))
    monkeypatch.setenv("GLIMPSEZOO_HOME", str(here / "home"))
    assert run().status == 0


def test_a_full_disk_of_a_training_keeps_the_last_checkpoint(
    here: Path, mount: Mount, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "tiny.toml").write_text(RECIPE)
    words = ("train", "mgnet", "--data", "digits", "--recipe", "tiny.toml", *TINY, "--set", "train.steps=3", "-o", "mine")
    from glimpsezoo.training.job import TrainingJob

    begin = TrainingJob.__init__
    monkeypatch.setattr(TrainingJob, "__init__", lambda *given, **more: begin(*given, **{**more, "checkpoint_seconds": 0}))
    assert ask(capsys, *words[:-1], "whole").status == 0
    mount(here / "mine", "size=8m")
    from glimpsezoo.training import folder

    real, saved = folder.write_whole, list[Path]()

    def write(path: Path, content: bytes) -> None:
        if path.name == folder.CHECKPOINT and len(saved) == 1:
            ballast = here / "mine/ballast"
            ballast.write_bytes(bytes(shutil.disk_usage(here / "mine").free - 4096))
        real(path, content)
        saved.append(path)

    with monkeypatch.context() as patch:
        patch.setattr(folder, "write_whole", write)
        line = only_line(ask(capsys, *words))
    assert "No space left on device" in line
    assert "free some space and repeat the command" in line
    assert (here / "mine" / folder.CHECKPOINT).is_file()
    assert not [*(here / "mine").glob(".*.part")]
    (here / "mine/ballast").unlink()
    found = ask(capsys, *words)
    assert found.status == 0
    assert (here / "mine/model.safetensors").read_bytes() == (here / "whole/model.safetensors").read_bytes()
