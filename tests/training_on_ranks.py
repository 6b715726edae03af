"""Trainings as a program, with torchrun or without: `training_on_ranks.py [FOLDER/]NAME[:float32[~K]][@STEPS]...`.

NAME is a recipe of this file or a model, and the weights are written to [FOLDER/]NAME.pt. @STEPS stops the training after so many steps.
Trainings are in float64, where sums in another order differ by so little that anything else that the number of processes changes is seen.
~K begins with other weights, as far away as rounding is: each K with its own, which shows what rounding does to a training.
"""

import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from toy_models import TASK, Peek, toy

import glimpsezoo as gz
from glimpsezoo import ranks
from glimpsezoo.core.rollout import rollout
from glimpsezoo.data.base import DataInfo, Example, ImageData
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.settings import Settings
from glimpsezoo.specs import ModelSpec, load_string
from glimpsezoo.training import loop
from glimpsezoo.training.job import TrainingJob
from glimpsezoo.training.loop import train
from glimpsezoo.training.shared import Share
from glimpsezoo.zoo.plugins import registry
from glimpsezoo.zoo.recipes import Recipe


class Blobs(ImageData):
    """29 images in float64 whose class is where the bright blob is; placed anew in every epoch. Batches of 8 leave a last one of 5."""

    info = DataInfo(name="blobs", source="made up", revision=None, fingerprint="1", split="train", transform="")

    def __init__(self, dtype: torch.dtype, task: gz.Task = TASK) -> None:
        self.dtype, self.task = dtype, task

    def __len__(self) -> int:
        return 29

    def __getitem__(self, index: int) -> Example:
        return self.training_example(index, 0)

    def training_example(self, index: int, epoch: int) -> Example:
        image = 0.1 * torch.rand(self.task.channels, *self.task.image_size, generator=torch.Generator().manual_seed(100 * epoch + index))
        label, third = index % 3, self.task.image_size[1] // 3
        image[:, :, third * label : third * label + third] += 0.8
        return Example(image.to(self.dtype), label, index, index)


class Normed(Peek):
    """Peek with a batch norm, a parameter that is never used, and a memory of what it saw."""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self.head = nn.Sequential(nn.BatchNorm1d(self.head.in_features), self.head)  # type: ignore[assignment]
        self.unused = nn.Linear(2, 2)


def step(model: Any, images: torch.Tensor, labels: torch.Tensor, phase: gz.TrainingPhase) -> dict[str, torch.Tensor]:
    """Two rollouts, and terms that are no means over images."""
    first = rollout(model, images, noise=phase.noise).logits
    other = rollout(model, images.flip(3), noise=phase.noise.fork(1)).logits
    mean = phase.mean(F.cross_entropy(other, labels, reduction="none"))
    before = phase.memory.get("baseline", torch.ones_like(mean.detach()))
    phase.memory["baseline"] = 0.9 * before + 0.1 * mean.detach()
    jitter = 1 + 0.1 * phase.noise.uniform(0, 1)[:, 0]
    advantage = gz.standardised(first.detach(), phase, 1e-5)
    terms = {"ce": (jitter * F.cross_entropy(first, labels, reduction="none")).mean(), "square": (mean - before).square()}
    return terms | {"reward": 0.1 * gz.reinforce(other.log_softmax(1), advantage)}


def careless(model: Any, images: torch.Tensor, labels: torch.Tensor, phase: gz.TrainingPhase) -> dict[str, torch.Tensor]:
    return {"ce": F.cross_entropy(rollout(model, images, noise=phase.noise).logits, labels).square()}


def dropping(model: Any, images: torch.Tensor, labels: torch.Tensor, phase: gz.TrainingPhase) -> dict[str, torch.Tensor]:
    return {"ce": F.cross_entropy(F.dropout(rollout(model, images, noise=phase.noise).logits, 0.5), labels)}


class ToySettings(Settings):
    steps: int = 2


PHASE = "[[phase]]\nname = 'one'\noptimiser = 'adam'\nlr = 0.01\nschedule = 'one-cycle'\nepochs = 2\n"
FROZEN = "[[phase]]\nname = 'two'\noptimiser = 'sgd'\nlr = 0.05\nsteps = 3\ntrainable = ['head.*']\nclip = 0.1\n"
RECIPES = {
    "plain": PHASE + FROZEN,
    "pgd": PHASE + "adversarial = {steps = 2, eps = 0.05}\n",
    "free": PHASE + "adversarial = {method = 'free', replays = 2, eps = 0.05}\n",
    "augmix": PHASE + "augmix = {}\n",
}
STEPS = {"careless": careless, "dropping": dropping}


def job(folder: Path, name: str, dtype: torch.dtype, share: Share) -> TrainingJob:
    """name: of a recipe, of a wrong training step, or of a plugin's model with a step of its own: MODEL+key=value+..."""
    torch.manual_seed(3)
    recipe = RECIPES.get(name, PHASE)
    if name in RECIPES or name in STEPS:
        model, training_step, data = toy(Normed, steps=2), STEPS.get(name, step), Blobs(dtype)
        model.config = ToySettings()
    else:
        word, *sets = name.split("+")
        spec = registry().find(ModelSpec, word)
        options = dict(each.split("=") for each in sets if not each.startswith("phase."))
        recipe += "".join(f"options.{each.removeprefix('phase.')}\n" for each in sets if each.startswith("phase."))
        size = int(options.pop("side", "32"))
        task = gz.Task((size, size), int(options.pop("channels", "1")), ("0", "1", "2"))
        model = gz.create_model(word, task=task, seed=3, **options)
        training_step, data = load_string(str(spec.training_step)), Blobs(dtype, task)
    folder.mkdir(exist_ok=True, parents=True)
    found = Recipe.from_toml("batch_size = 8\nprecision = 'float32'\n" + recipe, name="toy")
    return TrainingJob(
        model=model.to(dtype),  # built in float32, so that both begin with the same weights
        training_step=training_step,
        recipe=found,
        train=data,
        calibration=data,
        folder=folder,
        share=share,
        checkpoint_seconds=0,
    )


@torch.no_grad()
def nudged(model: nn.Module, seed: int) -> None:
    """Move every weight by the distance of two float32 numbers, up or down."""
    random = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        up = torch.rand(weight.shape, generator=random) < 0.5
        weight.copy_(torch.nextafter(weight, torch.where(up, 1.0, -1.0) * torch.inf))


def main(words: list[str]) -> None:
    loop.CALIBRATION_BATCH = 4
    with ranks.joined(torch.device("cpu")) as here:
        for word in words:
            place, _, stop = word.partition("@")
            name, _, nudge = place.rpartition("/")[2].partition("~")
            dtype = torch.float32 if ":float32" in name else torch.double
            work = job(Path(place), name.replace(":float32", ""), dtype, Share(here.rank, here.world))
            if nudge:
                nudged(work.model, int(nudge))
            try:
                _run(work, int(stop or 0))
            except GlimpseZooError as error:
                if here.rank == 0:
                    Path(f"{place}.error").write_text(str(error))
            else:
                if here.rank == 0:
                    torch.save(work.model.state_dict(), f"{place}.pt")


def _run(work: TrainingJob, stop: int) -> None:
    """Train to the end, or stop after so many steps; one of the processes asks for that."""
    done = [0]
    with closing(train(work, lambda: work.share.rank == work.share.world - 1 and done[-1] + 1 == stop)) as lines:
        for line in lines:
            done.append(line.done)
            if line.stops or (work.share.world == 1 and line.done == stop):
                break


if __name__ == "__main__":
    main(sys.argv[1:])
