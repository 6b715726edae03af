"""`train` on several processes that torchrun starts: the weights are those of one process, and one process speaks."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from command_line import RECIPE, TINY, ask, photos

from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.measures.stopwatch import threads
from glimpsezoo.run.engines import choosing
from glimpsezoo.training.folder import CHECKPOINT
from glimpsezoo.training.prepare import check_batches
from glimpsezoo.zoo.cards import CURVE, LOG, Card, training_log

PROGRAM = str(Path(__file__).with_name("training_on_ranks.py"))
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")  # on a free port: tests run in pairs
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
PLUGINS = (  # with batch norms, a search for places, drawn places, normalised returns
    "mgnet+glimpses=2+backbone=cnn4+downsample=2",
    "ranzato+glimpses=2+phase.glimpse=2",
    "ram+glimpses=2+phase.samples=2",
    "gfnet+backbone=test_efficientnet+patch=16+glimpses=2+hidden=12+locator_hidden=10+phase.stage=2",
    "adaptivenn+glimpses=2+patch=16+token=4+width=16+depth=3+head_depth=1+attention_heads=2+window=3+locator_channels=4+locator_hidden=8"
    "+drop_path=0.0+phase.own_side=16",
)
ROUNDED = ("plain:float32", *(f"plain:float32~{k}" for k in (1, 2, 3)))  # from starts as far apart as rounding is
PYRAMID = "pyramid-m3:float32+side=56+phase.samples=2"  # squares of means, a remembered baseline, images that finish early


def train_on(processes: int, here: Path, *words: str) -> None:
    start = TORCHRUN if processes == 2 else (sys.executable,)
    done = subprocess.run([*start, PROGRAM, *words], cwd=here, env=ENVIRONMENT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def distance(one: Path, other: Path) -> float:
    """Of all weights, as a share of the first ones."""
    weights = [torch.cat([tensor.double().flatten() for tensor in torch.load(path).values()]) for path in (one, other)]
    return ((weights[0] - weights[1]).norm() / weights[0].norm()).item()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """one: on one process; two: on two; 1to2, 2to1: stopped, and resumed on the other number of processes."""
    here = tmp_path_factory.mktemp("trained")
    recipes = ("plain", "pgd", "free", "augmix", *ROUNDED)
    train_on(1, here, *(f"one/{name}" for name in recipes), "1to2/plain@5", "1to2/free@3")
    whole = [f"two/{name}" for name in (*recipes, "careless", "dropping")]
    train_on(2, here, *whole, "1to2/plain", "1to2/free", "2to1/plain@5", "2to1/free@3")
    train_on(1, here, "2to1/plain", "2to1/free")
    return here


@pytest.mark.parametrize("name", ["plain", "pgd", "free", "augmix"])
def test_two_processes_end_with_the_weights_of_one(trained: Path, name: str):
    """In float64: batch norms, frozen and unused parameters, a memory, several rollouts, a smaller last batch, clipping, adversaries."""
    assert distance(trained / "one" / f"{name}.pt", trained / "two" / f"{name}.pt") < 1e-9
    one, two = (training_log(trained / folder / name) for folder in ("one", "two"))
    assert [line["calibration_top1"] for line in one] == [line["calibration_top1"] for line in two]
    for line, other in zip(one, two, strict=True):
        assert line["losses"] == pytest.approx(other["losses"], rel=1e-6)  # parts of which are in float32


def test_in_float32_two_processes_are_as_far_from_exact_weights_as_one(trained: Path):
    """What float32 alone makes of a training is measured, by the same training in float64. It differs tenfold between starts that rounding
    cannot tell apart, and between processors: so the largest of several counts.
    """
    exact = trained / "one" / "plain.pt"
    one, two = (max(distance(exact, trained / folder / f"{name}.pt") for name in ROUNDED) for folder in ("one", "two"))
    assert 0 < two < 4 * one


@pytest.mark.slow
def test_the_training_steps_of_plugins_are_shared(tmp_path: Path):
    for processes in (1, 2):
        train_on(processes, tmp_path, *(f"{processes}/{name}" for name in (*PLUGINS, PYRAMID)))
    for name in PLUGINS:
        assert distance(tmp_path / "1" / f"{name}.pt", tmp_path / "2" / f"{name}.pt") < 1e-9
    assert distance(tmp_path / "1" / f"{PYRAMID}.pt", tmp_path / "2" / f"{PYRAMID}.pt") < 1e-4


@pytest.mark.parametrize("name", ["plain", "free"])
@pytest.mark.parametrize("folder", ["1to2", "2to1"])
def test_it_resumes_on_another_number_of_processes(trained: Path, folder: str, name: str):
    assert distance(trained / "one" / f"{name}.pt", trained / folder / f"{name}.pt") < 1e-9
    assert len(training_log(trained / folder / name)) == len(training_log(trained / "one" / name))


@pytest.mark.parametrize("name", ["careless", "dropping"])
def test_a_training_step_that_shares_would_change_is_refused(trained: Path, name: str):
    """The square of a mean without `phase.mean`; torch's own random numbers."""
    error = (trained / "two" / f"{name}.error").read_text()
    assert "2 processes" in error
    assert "gradient" in error
    assert "one process" in error


def command(here: Path, *words: str) -> tuple[int, str, list[str]]:
    """`glimpsezoo train mgnet` on two processes: its exit status, standard output, and the lines of glimpsezoo on standard error."""
    done = subprocess.run(
        [*TORCHRUN, "-m", "glimpsezoo", "train", "mgnet", *TINY, "--recipe", "tiny.toml", *words],
        cwd=here,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, [line for line in done.stderr.splitlines() if line.startswith("glimpsezoo:")]


def test_the_command_writes_one_card_and_says_so_once(tmp_path: Path):
    (tmp_path / "tiny.toml").write_text(RECIPE)
    status, out, errors = command(tmp_path, "--set", "train.steps=2", "-o", "mine")
    assert (status, out.splitlines(), errors) == (0, ["mgnet.digits -> mine", "measure it: glimpsezoo run mine"], [])
    assert "2 processes" in Card.read(tmp_path / "mine").config.trained["machine"]
    assert {"README.md", "config.json", "model.safetensors", LOG, CURVE} == {path.name for path in (tmp_path / "mine").iterdir()}


def test_numbers_of_processes_that_make_no_sense(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    for name, value in {"MASTER_ADDR": "localhost", "MASTER_PORT": "1", "RANK": "2", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    answer = ask(capsys, "train", "cnn4")
    assert answer.status == 2
    assert "RANK='2', WORLD_SIZE='2'" in answer.err


def test_more_threads_than_cores_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("glimpsezoo.ranks.usable_cores", lambda: 4)
    with threads(3):
        assert "2 processes with 3 threads each share 4 cores" in choosing.chosen("auto").said
        assert choosing.chosen("auto").said.endswith("set OMP_NUM_THREADS=2")
    with threads(2):
        assert choosing.chosen("auto").said == ""


@pytest.mark.slow
@pytest.mark.parametrize(("words", "said"), [(("--set", "data.seed=x"), "seed"), (("--data", "digts"), "digits")])
def test_bad_input_is_said_once(tmp_path: Path, words: tuple[str, ...], said: str):
    (tmp_path / "tiny.toml").write_text(RECIPE)
    status, out, (error,) = command(tmp_path, *words, "-o", "other")
    assert (status, out) == (1, "")
    assert said in error
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_an_error_of_one_process_is_said_once(tmp_path: Path):
    """An image that only one of them reads."""
    photos(tmp_path / "photos")
    bad = tmp_path / "photos" / "dark" / "7.png"
    bad.write_bytes(bad.read_bytes()[:60])
    (tmp_path / "tiny.toml").write_text(RECIPE)
    status, out, (error,) = command(tmp_path, "--data", "folder:photos", "--set", "data.size=64", "--batch-size", "8", "-o", "other")
    assert (status, out) == (1, "")
    assert "dark/7.png" in error


ENDING = """
import torch
import torch.distributed as dist
from glimpsezoo import ranks

store = ranks.store()
for group in range(50):
    ranks.store = lambda name=str(group): dist.PrefixStore(name, store)
    with ranks.joined(torch.device("cpu")):
        for _ in range(3):
            dist.all_reduce(torch.zeros(3))
"""


def test_the_end_of_a_group_waits_for_no_thread_that_waits_for_it(tmp_path: Path):
    """A thread may still hold the tensor of the last message."""
    (tmp_path / "ending.py").write_text(ENDING)
    subprocess.run([*TORCHRUN, "ending.py"], cwd=tmp_path, env=ENVIRONMENT, check=True, timeout=120)


def test_bad_batches_are_refused():
    for images, batch in ((1084, 2), (10, 8)):
        with pytest.raises(GlimpseZooError, match=rf"3 processes, got {2}.*--batch-size"):
            check_batches(images, batch, 3)
    check_batches(9, 8, 3)  # a last batch of one image is left out
    check_batches(11, 8, 3)


@pytest.mark.parametrize(
    ("rank", "number", "said"),
    [
        (1, signal.SIGKILL, "2 processes"),
        pytest.param(None, signal.SIGTERM, "stopped; the last checkpoint is kept", marks=pytest.mark.slow),
    ],
)
def test_a_process_that_dies_ends_all_and_the_same_command_goes_on(tmp_path: Path, rank: int | None, number: int, said: str):
    """A process is killed, or torchrun is told to end."""
    second = RECIPE.replace("joint", "then").replace("batch_size = 64", "").replace("epochs = 2", "steps = 40")
    (tmp_path / "tiny.toml").write_text(RECIPE.replace("epochs = 2", "steps = 2") + second)
    words = [*TORCHRUN, "-m", "glimpsezoo", "train", "mgnet", *TINY, "--recipe", "tiny.toml", "-o", "mine"]
    with subprocess.Popen(words, cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, start_new_session=True) as running:
        assert running.stderr is not None
        lines = []
        while not (tmp_path / "mine" / CHECKPOINT).exists():
            lines.append(running.stderr.readline())
            assert lines[-1]
        os.kill(running.pid if rank is None else of_rank(rank, running.pid), number)
        lines += running.stderr.readlines()
    assert running.returncode == 1
    (line,) = [line for line in lines if line.startswith("glimpsezoo:")]
    assert said in line
    assert "resumes" in line
    assert {path.name for path in (tmp_path / "mine").iterdir() if not path.name.startswith(".")} == {CHECKPOINT, LOG}
    alone = [sys.executable, *words[len(TORCHRUN) :]]
    again = subprocess.run(alone, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert "resumes from its checkpoint" in again.stderr
    assert [(line["phase"], line["step"]) for line in training_log(tmp_path / "mine")] == [
        ("joint", 2),
        ("then", 17),
        ("then", 34),
        ("then", 40),
    ]


def of_rank(rank: int, parent: int) -> int:
    """The process of this rank that torchrun started."""
    for _ in range(100):
        for place in Path("/proc").glob("[0-9]*"):
            try:
                child = int((place / "stat").read_text().rpartition(")")[2].split()[1]) == parent
                if child and f"RANK={rank}".encode() in (place / "environ").read_bytes().split(b"\0"):
                    return int(place.name)
            except OSError:
                continue
        time.sleep(0.05)
    raise AssertionError(f"no process of rank {rank}")
