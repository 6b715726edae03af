"""A disk that fills up, becomes read-only or vanishes in the middle of a run or a training: one line, and the same command goes on."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import RECIPE, TINY, Answer, ask, photo_card, photos, tree
from hub_client import Client
from hub_server import HubServer

from glimpsezoo.evaluation import jobs
from glimpsezoo.evaluation.store import UnitStore
from glimpsezoo.training import folder
from glimpsezoo.training.job import TrainingJob

pytestmark = pytest.mark.repository

Mount = Callable[[Path, str], None]


@pytest.fixture
def mount() -> Iterator[Mount]:
    """Mounts a small disk (`size=1m`) or resizes it, makes a folder read-only (`ro`, whatever is open in it) and again not (`rw`)."""
    mounted = list[Path]()

    def call(*words: str | Path) -> None:
        done = subprocess.run(words, check=False, capture_output=True, text=True)
        if done.returncode and not mounted:
            pytest.skip("this user may not mount a disk")
        assert done.returncode == 0, done.stderr

    def make(disk: Path, options: str) -> None:
        disk.mkdir(parents=True, exist_ok=True)
        if options == "rw":
            call("umount", "-l", disk)
        elif options == "ro":
            call("mount", "--bind", disk, disk)
            call("mount", "-o", "remount,bind,ro", disk)
        else:
            what = f"remount,{options}" if disk in mounted else options
            call("mount", "-t", "tmpfs", "-o", what, "tmpfs", disk)
        mounted.append(disk)

    if shutil.which("mount") is None:
        pytest.skip("there is no 'mount'")
    yield make
    for disk in mounted:
        subprocess.run(["umount", "-l", disk], check=False, capture_output=True)


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


def trained(capsys: pytest.CaptureFixture[str], output: str = "mine") -> Answer:
    words = ("train", "mgnet", "--data", "digits", "--recipe", "tiny.toml", *TINY, "--set", "train.steps=3")
    return ask(capsys, *words, "-o", output)


@pytest.fixture
def whole(here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The weights of a training that nothing disturbed; every training writes a checkpoint after every step."""
    (here / "tiny.toml").write_text(RECIPE)
    begin = TrainingJob.__init__
    monkeypatch.setattr(TrainingJob, "__init__", lambda *given, **more: begin(*given, **{**more, "checkpoint_seconds": 0}))
    assert trained(capsys, "whole").status == 0
    return (here / "whole/model.safetensors").read_bytes()


def at_second_checkpoint(monkeypatch: pytest.MonkeyPatch, do: Callable[[], Any]) -> None:
    """Do something before the second checkpoint of a training is written."""
    real, begun = folder.write_whole, list[Path]()

    def write(path: Path, content: bytes) -> None:
        begun.append(path)
        if len(begun) == 2:
            do()
        real(path, content)

    monkeypatch.setattr(folder, "write_whole", write)


@pytest.mark.parametrize("disk", ["full", "read-only"])
def test_a_disk_of_a_training_that_is_full_or_read_only_keeps_the_last_checkpoint(
    here: Path, whole: bytes, mount: Mount, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, disk: str
) -> None:
    mount(here / "mine", "size=8m")
    ballast = here / "mine/ballast"

    def fill() -> None:
        ballast.write_bytes(bytes(shutil.disk_usage(here / "mine").free - 4096))

    with monkeypatch.context() as patch:
        at_second_checkpoint(patch, fill if disk == "full" else lambda: mount(here / "mine", "ro"))
        line = only_line(trained(capsys))
    assert ("No space left on device" if disk == "full" else "Read-only file system") in line
    assert ("free some space and repeat the command" in line) == (disk == "full")
    assert "repeat the command when it can be" in line
    assert (here / "mine" / folder.CHECKPOINT).is_file()
    assert not [*(here / "mine").glob(".*.part")]
    if disk == "full":
        ballast.unlink()
    else:
        mount(here / "mine", "rw")
    found = trained(capsys)
    assert (found.status, "resumes from its checkpoint" in found.err) == (0, True), found
    assert (here / "mine/model.safetensors").read_bytes() == whole


def test_a_folder_of_a_training_that_vanishes_is_one_line_and_the_same_command_starts_over(
    here: Path, whole: bytes, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        at_second_checkpoint(patch, lambda: shutil.rmtree(here / "mine"))
        line = only_line(trained(capsys))
    assert "can be written, got 'mine' (No such file or directory): repeat the command" in line
    assert trained(capsys).status == 0
    assert (here / "mine/model.safetensors").read_bytes() == whole


@pytest.mark.parametrize("option", ["-o", "--update-card"])
def test_results_whose_disk_becomes_read_only_are_one_line_and_the_units_stay(
    here: Path, mount: Mount, run: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    words, place = (("-o", "out"), here / "out") if option == "-o" else (("--update-card",), here / "zoo_cards")
    kept = shutil.copytree("zoo_cards", here / "copy")
    mount(place, "size=4m")
    if option == "--update-card":
        shutil.copytree(kept, place, dirs_exist_ok=True)
    before = tree(place)
    with monkeypatch.context() as patch:
        after_units(patch, 2, lambda: mount(place, "ro"))
        line = only_line(run(*words))
    assert "(Read-only file system): choose another --output" in line
    assert tree(place) == before
    mount(place, "rw")
    assert "0 units measured, 7 reused" in run(*words).err


def test_a_folder_of_results_that_vanishes_is_made_again(here: Path, run: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("-o", "out").status == 0
    expected = tree(here / "out").keys()
    after_units(monkeypatch, 2, lambda: shutil.rmtree(here / "out"))
    assert run("-o", "out", "--fresh").status == 0
    assert tree(here / "out").keys() == expected


def test_a_cache_of_the_hub_that_is_full_or_read_only_is_one_line(hub: HubServer, client: Client, here: Path, mount: Mount) -> None:
    hub.repository("me/net", here / "zoo_cards/small")
    words, cache = ("pull", "hf-hub:me/net", "-o", "pulled", "--force"), client.folder / "home"
    mount(cache, "size=16k")
    line = only_line(client.command(*words))
    assert "the disk is full, downloading me/net" in line
    assert "set HF_HOME to another disk" in line
    mount(cache, "size=4m")
    mount(cache, "ro")
    line = only_line(client.command(*words))
    assert "the cache of the Hub cannot be written (Read-only file system), downloading me/net: set HF_HOME" in line
    assert not (client.folder / "pulled").exists()
    mount(cache, "rw")
    assert client.command(*words).status == 0
    mount(cache, "ro")
    assert client.command(*words).status == 0  # it has everything
