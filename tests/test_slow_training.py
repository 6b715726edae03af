"""Minutes of real training on real data: pytest -m slow. The data are looked for as tests/conftest.py says, and skipped where absent."""

import os
from pathlib import Path

import pytest
import torch

from glimpsezoo.training.loop import train
from glimpsezoo.training.prepare import prepare_training
from glimpsezoo.training.request import TrainingRequest

HERE = Path(__file__).parent.parent
DATA = Path(os.environ.get("GLIMPSEZOO_TEST_DATA") or HERE.parent / "shared" / "data")
SMALL_BATCHES = ("train.batch_size=32", "train.optimiser=adamw", "train.schedule=one-cycle", "train.clip=1")
RUNS = [
    # model, data, steps of each phase, what share of the loss may be left, further settings
    ("mgnet.tmnist.wide", "tmnist", 150, 0.95, ("train.lr=0.003",)),
    ("cnn4", "tmnist", 60, 0.95, ("train.lr=0.003",)),
    ("ranzato.jittered-mnist.2", "jittered-mnist", 400, 0.95, ()),
    ("pyramid-m3.plain-mnist.28", "plain-mnist", 200, 0.95, ()),
    ("mgnet", "tiny-imagenet", 300, 0.99, (*SMALL_BATCHES, "train.lr=0.0005")),  # 9,600 images of 200 classes teach little
]


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="needs copies of MNIST and Tiny ImageNet")
@pytest.mark.parametrize(("model", "data", "steps", "left", "more"), RUNS, ids=[f"{run[0]} on {run[1]}" for run in RUNS])
def test_a_short_run_lowers_the_loss_and_resumes(model: str, data: str, steps: int, left: float, more: tuple[str, ...], tmp_path: Path):
    def work(folder: str):
        return prepare_training(
            TrainingRequest(
                model=model,
                data=data,
                device=torch.device("cpu"),
                data_dir=str(DATA),
                sets=(f"train.steps={steps}", *more),
                output=tmp_path / folder,
            )
        )

    def losses(run) -> list[float]:
        """The sum of the terms of each step of the first phase; progress gives means over the epoch so far."""
        total, before, found = 0.0, 0.0, []
        for number, line in enumerate(run, 1):
            if line.done > steps:
                break
            total = sum(line.losses.values()) * number
            found.append(total - before)
            before = total
        return found

    whole = work("whole")
    found = losses(train(whole.job))
    fifth = steps // 5
    assert sum(found[-fifth:]) < left * sum(found[:fifth])

    cut = train(work("cut").job)
    for _ in range(steps // 2):
        next(cut)
    cut.close()
    resumed = work("cut")
    assert next(train(resumed.job)).done == steps // 2 + 1
