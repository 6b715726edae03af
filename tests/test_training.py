"""Training: it learns, it resumes exactly wherever it was stopped, and it holds fixed what a phase does not train."""

import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from toy_models import TASK, Peek, toy

from glimpsezoo.core.rollout import rollout
from glimpsezoo.data.base import Batch, DataInfo, Example, ImageData
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.settings import Settings
from glimpsezoo.training import loop
from glimpsezoo.training.folder import CHECKPOINT, load_checkpoint
from glimpsezoo.training.job import TrainingJob
from glimpsezoo.training.loop import Progress, train
from glimpsezoo.training.optimisers import make_optimiser, unmatched
from glimpsezoo.zoo.cards import LOG
from glimpsezoo.zoo.models import create_model
from glimpsezoo.zoo.recipes import Recipe


class Blobs(ImageData):
    """30 images whose class is where the bright blob is; placed anew in every epoch."""

    info = DataInfo(name="blobs", source="made up", revision=None, fingerprint="1", split="train", transform="")
    task = TASK

    def __len__(self) -> int:
        return 30

    def __getitem__(self, index: int) -> Example:
        return self.training_example(index, 0)

    def training_example(self, index: int, epoch: int) -> Example:
        image = 0.1 * torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(100 * epoch + index))
        label = index % 3
        image[:, :, 5 * label : 5 * label + 5] += 0.8
        return Example(image, label, index, index)


def cross_entropy(model, images, labels, phase):
    # The noise makes the loss depend on phase.noise and on torch's generator, which must both be resumed.
    jitter = 0.1 * phase.noise.uniform(0, 1).mean() + 0.01 * torch.rand(())
    phase.memory["seen"] = phase.memory.get("seen", torch.zeros(())) + len(images)
    return {"ce": F.cross_entropy(rollout(model, images, noise=phase.noise).logits, labels) * (1 + jitter)}


RECIPE = """
batch_size = 8
seed = 3
[[phase]]
name = "first"
epochs = 2
optimiser = "adam"
lr = 0.01
schedule = "one-cycle"
[[phase]]
name = "second"
steps = 5
optimiser = "sgd"
lr = 0.05
trainable = ["head.*"]
"""


class ToySettings(Settings):
    steps: int = 2


def job(folder: Path, recipe: str = RECIPE, **given) -> TrainingJob:
    folder.mkdir(exist_ok=True)
    model = toy(Peek, steps=2)
    model.config = ToySettings()
    data = Blobs()
    recipe_ = Recipe.from_toml(recipe, name="toy")
    return TrainingJob(model=model, training_step=cross_entropy, recipe=recipe_, train=data, calibration=data, folder=folder, **given)


def finish(work: TrainingJob) -> dict[str, torch.Tensor]:
    for _ in train(work):
        pass
    return work.model.state_dict()


def test_it_learns_and_logs_a_line_an_epoch(tmp_path: Path):
    work = job(tmp_path, RECIPE.replace("epochs = 2", "epochs = 20"))
    lines = list(train(work))
    assert lines[-1].losses["ce"] < 0.5 * lines[0].losses["ce"]
    assert lines[-1].done == lines[-1].total == 20 * 4 + 5
    log = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert [line["epoch"] for line in log if line["phase"] == "first"] == list(range(1, 21))
    assert log[-1]["calibration_top1"] == lines[-1].calibration
    assert lines[-1].calibration is not None
    assert lines[-1].calibration > 0.8


@pytest.mark.parametrize("stop_after", [1, 3, 6, 8, 9, 12])
def test_stopped_anywhere_it_ends_with_the_same_weights(tmp_path: Path, stop_after: int):
    whole = finish(job(tmp_path / "whole"))

    steps = train(job(tmp_path / "cut", checkpoint_seconds=1e9))
    for _ in range(stop_after):
        next(steps)
    steps.close()  # what Ctrl-C does
    resumed = job(tmp_path / "cut")
    first = next(iter_ := train(resumed))
    assert first.done == stop_after + 1
    for _ in iter_:
        pass
    for name, value in resumed.model.state_dict().items():
        assert torch.equal(value, whole[name]), name
    log = (tmp_path / "cut" / LOG).read_text()
    assert log == (tmp_path / "whole" / LOG).read_text()


def test_a_kill_loses_only_what_follows_the_last_checkpoint(tmp_path: Path):
    """Log lines of steps behind the checkpoint are written anew, not twice."""
    whole = finish(job(tmp_path / "whole"))
    steps = train(job(tmp_path / "killed", checkpoint_seconds=0))
    for _ in range(3):
        next(steps)
    saved = (tmp_path / "killed" / CHECKPOINT).read_bytes()
    for _ in range(4):
        next(steps)
    steps.close()
    (tmp_path / "killed" / CHECKPOINT).write_bytes(saved)  # as if the process had died there
    resumed = finish(job(tmp_path / "killed"))
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    assert (tmp_path / "killed" / LOG).read_text() == (tmp_path / "whole" / LOG).read_text()


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9, 1])
def test_a_checkpoint_with_a_flipped_bit_is_refused(tmp_path: Path, share: float):
    """Of the hash, and of the weights: torch itself reads most damaged files without a word."""
    steps = train(job(tmp_path))
    next(steps)
    steps.close()
    whole = (tmp_path / CHECKPOINT).read_bytes()
    place = int(share * (len(whole) - 1))
    (tmp_path / CHECKPOINT).write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
    with pytest.raises(GlimpseZooError, match=r"damaged.*--fresh"):
        next(train(job(tmp_path)))
    (tmp_path / CHECKPOINT).write_bytes(whole)
    assert next(train(job(tmp_path))).done == 2


@pytest.mark.parametrize("stopped", [1, 2, 3])
def test_stopped_while_an_epoch_is_measured_it_loses_no_line_of_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped: int):
    whole = finish(job(tmp_path / "whole"))
    measured: list[int] = []
    plain = loop.calibration_accuracy

    def stop(*given) -> float:
        measured.append(1)
        if len(measured) == stopped:
            raise KeyboardInterrupt
        return plain(*given)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "calibration_accuracy", stop)
        with pytest.raises(KeyboardInterrupt):
            finish(job(tmp_path / "cut", checkpoint_seconds=0))
    resumed = finish(job(tmp_path / "cut"))
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    assert (tmp_path / "cut" / LOG).read_text() == (tmp_path / "whole" / LOG).read_text()


def test_a_resume_that_fails_leaves_the_checkpoint_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Restoring the optimiser may take more memory than there is."""
    steps = train(job(tmp_path))
    for _ in range(6):
        next(steps)
    steps.close()
    before = (tmp_path / CHECKPOINT).read_bytes()

    def full(*given: object) -> None:
        raise RuntimeError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.Optimizer, "load_state_dict", full)
        with pytest.raises(RuntimeError, match="out of memory"):
            finish(job(tmp_path))
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def test_a_torn_line_of_the_log_stops_no_resume(tmp_path: Path):
    finish(job(tmp_path / "whole"))
    steps = train(job(tmp_path / "cut"))
    for _ in range(5):
        next(steps)
    steps.close()
    with (tmp_path / "cut" / LOG).open("a") as log:
        log.write('{"phase_index": 0, "ph')
    finish(job(tmp_path / "cut"))
    assert (tmp_path / "cut" / LOG).read_text() == (tmp_path / "whole" / LOG).read_text()


def test_two_trainings_do_not_share_a_folder(tmp_path: Path):
    steps = train(job(tmp_path))
    next(steps)
    with pytest.raises(GlimpseZooError, match=r"another command.*--output"):
        next(train(job(tmp_path)))
    next(steps)  # which the other one left alone
    steps.close()
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]
    finish(job(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == [CHECKPOINT, LOG]


def test_a_disk_that_is_full_ends_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    words = r"expected an output folder .*, got '.*' \(No space left on device\): .* checkpoint; .* --output"

    def full(*places: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(GlimpseZooError, match=words):
            finish(job(tmp_path / "checkpoint"))
    steps = train(job(tmp_path / "log"))
    next(steps)
    (tmp_path / "log" / LOG).symlink_to("/dev/full")
    monkeypatch.setattr("glimpsezoo.training.folder.no_link", None)
    with pytest.raises(GlimpseZooError, match=words):
        list(steps)
    assert not (tmp_path / "log" / CHECKPOINT).exists()  # of a step whose epoch is not logged


def test_the_calibration_accuracy_is_that_of_the_weights_after_the_last_step_of_the_optimiser():
    """Convolutions without a batch norm, whose weights are arranged once for `inference`."""
    model = create_model("ranzato-conv", task=TASK)
    images = torch.rand(16, 1, 16, 16)
    batch = Batch(images=images, labels=torch.zeros(16, dtype=torch.long), ids=torch.arange(16), groups=torch.arange(16))
    loop.calibration_accuracy(model, [batch], torch.device("cpu"))
    before = rollout(model.eval(), images).logits.argmax(1)
    convolutions = [p for p in model.parameters() if p.ndim == 4]
    optimiser = make_optimiser(Recipe.from_toml(RECIPE, name="recipe").phase[0], convolutions)
    for _ in range(20):
        optimiser.zero_grad()
        F.cross_entropy(rollout(model, images).logits, (before + 1) % 3).backward()
        optimiser.step()
    labels = rollout(model, images).logits.argmax(1)
    assert (labels != before).any()
    assert loop.calibration_accuracy(model, [batch._replace(labels=labels)], torch.device("cpu")) == 1


@pytest.mark.parametrize("fits", [True, False])
def test_calibration_images_are_read_once_if_they_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fits: bool):
    read: list[int] = []
    plain = loop.batches
    monkeypatch.setattr(loop, "batches", lambda *given: [read.append(1), plain(*given)][1])
    monkeypatch.setattr(loop, "fits", lambda size, device: fits and size == 4 * 30 * 16 * 16)
    finish(job(tmp_path))
    assert len(read) == (1 if fits else 4)  # after each epoch; the last one is incomplete
    log = [json.loads(line)["calibration_top1"] for line in (tmp_path / LOG).read_text().splitlines()]
    assert None not in log


def test_epochs_of_the_data_count_over_all_phases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[int] = []
    plain = loop.training_batches

    def spy(data: ImageData, epoch: int, *given, **named):
        seen.append(epoch)
        return plain(data, epoch, *given, **named)

    monkeypatch.setattr(loop, "training_batches", spy)
    recipe = RECIPE + "[[phase]]" + RECIPE.split("[[phase]]")[1]
    finish(job(tmp_path / "whole", recipe))
    assert seen == [0, 1, 2, 3, 4, 5]  # two epochs of 4 steps, 5 steps, two epochs

    seen.clear()
    cut = train(job(tmp_path / "cut", recipe))
    for _ in range(2 * 4 + 5 + 3):
        next(cut)
    cut.close()
    finish(job(tmp_path / "cut", recipe))
    assert seen == [0, 1, 2, 3, 4, 4, 5]


def test_a_phase_trains_only_what_it_names(tmp_path: Path):
    work = job(tmp_path)
    steps = train(work)
    for _ in range(8):
        next(steps)
    before = {name: value.clone() for name, value in work.model.state_dict().items()}
    for _ in steps:
        pass
    after = work.model.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed == {name for name in after if name.startswith("head.")} != set()


def test_memory_is_kept_over_a_stop(tmp_path: Path):
    steps = train(job(tmp_path))
    next(steps)
    steps.close()
    state = load_checkpoint(job(tmp_path))
    assert state is not None
    assert state["memory"]["seen"] == 8


def test_another_job_s_checkpoint_is_refused(tmp_path: Path):
    next(steps := train(job(tmp_path)))
    steps.close()
    with pytest.raises(GlimpseZooError, match=r"checkpoint of another training.*--output.*--fresh"):
        next(train(job(tmp_path, RECIPE.replace("lr = 0.05", "lr = 0.06"))))


def test_a_job_that_begins_with_other_weights_is_another(tmp_path: Path):
    next(steps := train(job(tmp_path, start=64 * "a")))
    steps.close()
    for start in (None, 64 * "b"):
        with pytest.raises(GlimpseZooError, match=r"checkpoint of another training.*--output.*--fresh"):
            next(train(job(tmp_path, start=start)))
    next(train(job(tmp_path, start=64 * "a")))


def test_a_job_that_reads_its_images_in_another_order_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    next(steps := train(job(tmp_path)))
    steps.close()
    usual = Blobs.training_order
    monkeypatch.setattr(Blobs, "training_order", lambda *given: usual(*given).sort().values)
    with pytest.raises(GlimpseZooError, match=r"checkpoint of another training.*--output.*--fresh"):
        next(train(job(tmp_path)))


def test_a_loss_that_is_not_finite_stops_the_training(tmp_path: Path):
    work = job(tmp_path, RECIPE.replace("lr = 0.01", "lr = 1e30"))
    with pytest.raises(GlimpseZooError, match=r"not finite in step \d+ of phase 'first' \(ce (nan|inf)\)"):
        for _ in train(work):
            pass


def test_a_pattern_that_matches_nothing_is_an_error(tmp_path: Path):
    with pytest.raises(GlimpseZooError, match=r"phase 'second'.*tail\.\*"):
        finish(job(tmp_path, RECIPE.replace("head.*", "tail.*")))


def test_a_pattern_that_matches_nothing_beside_others_is_a_warning(tmp_path: Path):
    work = job(tmp_path, RECIPE.replace('["head.*"]', '["head.*", "haed.*"]'))
    assert unmatched(work.model, work.recipe) == ["warning: no parameter matches 'haed.*', which phase 'second' trains"]
    assert unmatched(work.model, job(tmp_path).recipe) == []


def test_progress_counts_over_all_phases(tmp_path: Path):
    lines: list[Progress] = list(train(job(tmp_path)))
    assert [line.done for line in lines] == list(range(1, 2 * 4 + 5 + 1))


def test_in_bfloat16_a_weight_that_was_used_without_gradients_gets_one(tmp_path: Path):
    """As when a model first looks for the best places: torch below 2.11 keeps the cast of a weight, graph or not."""

    def looks_first(*given: Any) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            cross_entropy(*given)
        return cross_entropy(*given)

    work = replace(job(tmp_path, 'precision = "bfloat16"' + RECIPE), training_step=looks_first)
    next(train(work))
    assert [name for name, parameter in work.model.named_parameters() if parameter.grad is None] == []


def test_bfloat16_is_a_choice_of_the_recipe_and_leaves_float32_weights(tmp_path: Path):
    def first_loss(folder: str, recipe: str) -> float:
        return next(train(job(tmp_path / folder, recipe))).losses["ce"]

    exact, mixed = first_loss("exact", RECIPE), first_loss("mixed", 'precision = "bfloat16"' + RECIPE)
    assert 0 < abs(exact - mixed) < 0.02 * exact
    whole = finish(job(tmp_path / "whole", 'precision = "bfloat16"' + RECIPE))
    assert {tensor.dtype for tensor in whole.values()} == {torch.float32}
