"""benchmarks/gpu.py from end to end, with tiny settings: nothing is left to be found out on a GPU but what only a GPU has."""

import json
import sys
from pathlib import Path

import arrays  # pyright: ignore[reportMissingImports]
import gpu  # pyright: ignore[reportMissingImports]
import gpu_latency  # pyright: ignore[reportMissingImports]
import pytest
import torch
from command_line import TRACES, ask
from data_files import opened, tiny_imagenet
from row_files import read_rows
from torch._subclasses.fake_tensor import FakeTensorMode

import glimpsezoo as gz
from glimpsezoo.core.noise import Noise
from glimpsezoo.data.memory import InMemory
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.training.job import TrainingJob
from glimpsezoo.zoo.cards import LOG, training_log

CPU = torch.device("cpu")
SETS = ("backbone=cnn4", "maxpool=true", "train.batch_size=40", "data.colours=keep")
CARD, BASELINE = gpu.CARDS


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder above a small copy of Tiny ImageNet: 115 images to train on, 5 to calibrate with, 40 to test on."""
    folder = tmp_path_factory.mktemp("data")
    tiny_imagenet(folder / "tiny-imagenet")
    return folder


@pytest.fixture(scope="module")
def folder(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as arrays, in several pieces."""
    made = tmp_path_factory.mktemp("arrays")
    arrays.prepare(data, made, piece=50_000, on_bad_image="skip")
    return made


@pytest.mark.parametrize("split", ["train", "calibration", "test"])
def test_arrays_hold_the_same_examples(data: Path, folder: Path, split: str):
    ours, usual = arrays.open_arrays(folder, split), opened("tiny-imagenet", split, data, on_bad_image="skip")
    assert (ours.info, ours.task, len(ours)) == (usual.info, usual.task, len(usual))
    assert ours.labels().tolist() == usual.labels().tolist()
    for place in (0, len(ours) - 1):
        for mine, theirs in ((ours[place], usual[place]), (ours.training_example(place, 3), usual.training_example(place, 3))):
            assert torch.equal(mine.image, theirs.image)
            assert mine[1:] == theirs[1:]


def test_pieces_are_small_and_none_may_be_missing(folder: Path, tmp_path: Path):
    pieces = sorted(folder.glob("train-[0-9]*.npy"))
    assert len(pieces) > 1
    assert all(piece.stat().st_size < 51_000 for piece in pieces)
    for file in folder.iterdir():
        if file != pieces[1]:
            (tmp_path / file.name).symlink_to(file)
    with pytest.raises(GlimpseZooError, match="copy all pieces"):
        arrays.open_arrays(tmp_path, "train")
    with pytest.raises(GlimpseZooError, match=r"gpu\.py prepare"):
        arrays.open_arrays(tmp_path / "elsewhere", "train")


def job(folder: Path, output: Path, epochs: int = 1) -> TrainingJob:
    return gpu.with_epochs(gpu.training_job(CARD, folder, output, SETS, CPU), epochs)


def test_training_images_are_held_on_the_device(folder: Path, tmp_path: Path):
    assert isinstance(job(folder, tmp_path).train, InMemory)


def test_a_training_in_many_calls_ends_with_the_same_weights(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert gpu.trained(job(folder, tmp_path / "once"), folder, float("inf"))
    monkeypatch.setattr(gpu, "PIECE", 400_000)
    for call in range(3):  # a step per call
        done = gpu.trained(job(folder, tmp_path / "cut"), folder, float("-inf"))
        assert done == (call == 2)
        left = list((tmp_path / "cut" / CARD).iterdir())
        assert max(file.stat().st_size for file in left) <= 400_000
        assert len([file for file in left if file.name.startswith("model" if done else "checkpoint.pt.")]) > 1
    once, cut = (tmp_path / way / CARD for way in ("once", "cut"))
    gpu.join(once / "model.safetensors")
    gpu.join(cut / "model.safetensors")
    assert (once / "model.safetensors").read_bytes() == (cut / "model.safetensors").read_bytes()
    assert (once / LOG).read_text() == (cut / LOG).read_text()


def test_epochs_are_planned_once_from_the_time_of_some_steps(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gpu, "WARM", 1)
    monkeypatch.setattr(gpu, "TIMED", 2)
    jobs = [gpu.training_job(card, folder, tmp_path, SETS, CPU) for card in gpu.CARDS]
    before = {name: tensor.clone() for name, tensor in jobs[0].model.state_dict().items()}
    epochs = gpu.planned_epochs(tmp_path, jobs, 1000.0, None)
    times = json.loads((tmp_path / gpu.PLAN).read_text())["seconds_per_epoch"]
    assert epochs * sum(times.values()) <= gpu.SHARE * 1000 < (epochs + 1) * sum(times.values())
    assert all(torch.equal(tensor, before[name]) for name, tensor in jobs[0].model.state_dict().items())  # nothing was trained yet
    assert list(tmp_path.iterdir()) == [tmp_path / gpu.PLAN]
    assert gpu.planned_epochs(tmp_path, jobs, 1.0, None) == epochs
    with pytest.raises(GlimpseZooError, match=f"the {epochs} epochs of the first call, got {epochs + 1}"):
        gpu.planned_epochs(tmp_path, jobs, 1.0, epochs + 1)
    assert gpu.with_epochs(jobs[0], epochs).recipe.phase[0].epochs == epochs


@pytest.mark.parametrize("how", ["--no-compile", pytest.param("--compile", marks=pytest.mark.slow)])
def test_from_arrays_to_a_card_that_a_run_measures(data: Path, folder: Path, tmp_path: Path, how: str, capsys: pytest.CaptureFixture[str]):
    if how == "--compile" and not TRACES:
        pytest.skip("torch is too old to compile what the tests' type checks wrap")
    words = ["run", str(folder), "-o", str(tmp_path / "out"), "--epochs", "1", how]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLIMPSEZOO_SHORT", "1")
        patch.setitem(sys.modules, "datasets", None)  # an import of it fails
        gpu.main([*words, *(word for text in SETS for word in ("--set", text))], standalone_mode=False)
    for card in gpu.CARDS:
        gpu.main(["card", str(tmp_path / "out" / card), "-o", str(tmp_path / card)], standalone_mode=False)
        assert training_log(tmp_path / card)[-1]["calibration_top1"] is not None
    found = json.loads((tmp_path / "out" / gpu.LATENCY).read_text())
    ways = ("rollout", "bare", *(["compiled"] if how == "--compile" else []))
    assert {(row["model"], row["batch"], row["way"]) for row in found["rows"]} == {
        (model, batch, way) for model in gpu_latency.MODELS for batch in (1, 2) for way in ways
    }
    assert found["complete"]
    assert all(row["ms"] > 0 and row["limit_ms"] > 0 for row in found["rows"])
    answer = ask(capsys, "run", str(tmp_path / CARD), "--data-dir", str(data), "--on-bad-image", "skip", "--json")
    rows = read_rows(tmp_path / "out" / CARD / gpu.PREDICTIONS)
    assert answer.json["results"][0]["accuracy"]["top1"]["value"] == pytest.approx(rows.rows.hits[:, -1].mean())


@pytest.mark.parametrize("name", gpu_latency.MODELS)
def test_the_bare_pass_is_that_of_rollout_and_waits_for_nothing(name: str):
    model, images = gpu_latency.build(name, 64, CPU).float(), torch.rand(2, 3, 64, 64)
    noise = Noise.of(0, torch.arange(2))
    with torch.no_grad():
        assert torch.equal(gpu_latency.bare_pass(model, images, noise), gz.rollout(model, images, noise=noise).logits)
        with FakeTensorMode(allow_non_fake_inputs=True) as fake:  # raises an error where a value would have to be read
            gpu_latency.bare_pass(model, fake.from_tensor(images), Noise(fake.from_tensor(noise.keys)))


def test_the_least_time_is_that_of_the_slower_of_copy_and_product():
    model, images = gpu_latency.build("timm:resnet18", 64, CPU), torch.rand(1, 3, 64, 64)
    limits = gpu_latency.Limits(bytes_per_s=1e30, flop_per_s=2e9)  # a device that only multiplies: MACs in 1e-9 s
    macs = gz.count_macs(lambda: gz.rollout(model.float(), images)).macs
    assert gpu_latency.least_seconds(model, images, limits) == pytest.approx(macs / 1e9)
    weights = sum(parameter.numel() for parameter in model.parameters() if parameter.ndim > 1)
    limits = gpu_latency.Limits(bytes_per_s=1.0, flop_per_s=1e30)
    assert gpu_latency.least_seconds(model, images, limits) > 2 * weights
