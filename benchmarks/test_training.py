"""What a training step costs: MGNet on T-MNIST by `glimpsezoo train`, against the same training as a plain script.

    pytest benchmarks/test_training.py -s

Both train the model, the losses and the optimiser of the recipe mgnet.tmnist.wide, from random weights, on random digits. The plain
script is below, and has none of glimpsezoo's code: a `Dataset` places one digit at a time, each step computes the attention over all looks
so far (equation 3 as it is written), and memory formats, allocator and optimiser are as they come. Each side runs in its own process, with
all cores, because the allocator's settings belong to a process. Turns of the two alternate. The benchmark's time is that of a turn of
ours; the ratio is that of the medians.
"""

import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

SHORT = "GLIMPSEZOO_SHORT" in os.environ  # one turn, to check that it runs: times on a busy machine mean nothing
DIGITS, SIDE, CANVAS, BATCH = (256, 28, 112, 16) if SHORT else (55_000, 28, 112, 128)
TURNS, STEPS = (1, 1) if SHORT else (12, 4)
LOOKS, LOW, HIGH, ALPHA, GRADIENT_SCALE = 3, 0.25, 0.33, 0.6, 0.3


class PlacedDigits(Dataset[tuple[Tensor, Tensor]]):
    """Digits, rotated and stretched by a little, at random places of a black canvas."""

    def __init__(self, digits: Tensor, labels: Tensor) -> None:
        self.digits, self.labels = digits, labels  # [N, 28, 28] in 0..255, [N]

    def __len__(self) -> int:
        return len(self.digits)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        angle, wide, high = (2 * torch.rand(3) - 1).tolist()
        angle, wide, high = math.radians(8 * angle), 1 + 0.08 * wide, 1 + 0.08 * high
        rows = [[math.cos(angle) / wide, math.sin(angle) / wide, 0], [-math.sin(angle) / high, math.cos(angle) / high, 0]]
        grid = F.affine_grid(torch.tensor([rows]), [1, 1, SIDE, SIDE], align_corners=False)
        digit = F.grid_sample(self.digits[index][None, None] / 255, grid, align_corners=False)[0]
        y, x = torch.randint(CANVAS - SIDE + 1, (2,)).tolist()
        image = torch.zeros(1, CANVAS, CANVAS)
        image[:, y : y + SIDE, x : x + SIDE] = digit
        return image, self.labels[index]


class ScaledGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return GRADIENT_SCALE * gradient


class SmallCNN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 16, 5), nn.Conv2d(16, 32, 5, padding=2)
        self.conv3, self.conv4 = nn.Conv2d(32, 64, 3, padding=1), nn.Conv2d(64, 128, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.max_pool2d(F.relu(self.conv3(x)), 2)
        return F.relu(self.conv4(x)).mean((2, 3))


class PlainMGNet(nn.Module):
    """The names of its parameters are those of glimpsezoo's MGNet."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, d = SmallCNN(), 128 + 3
        self.query, self.key, self.value, self.out = (nn.Linear(d, d) for _ in range(4))
        self.norm, self.locator = nn.LayerNorm(d), nn.Linear(d, 3)
        self.global_classifier, self.glimpse_classifier = nn.Linear(d, 10), nn.Linear(128, 10)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """The loss. images: [B, 1, 112, 112], labels: [B]."""
        scale, centre = torch.ones(len(images)), torch.zeros(len(images), 2)
        seen, of_fused, of_glimpse = [], [], []
        for look in range(LOOKS):
            zero = torch.zeros_like(scale)
            theta = torch.stack([scale, zero, centre[:, 0], zero, scale, centre[:, 1]], 1).view(-1, 2, 3)
            grid = F.affine_grid(theta, [len(images), 1, SIDE, SIDE], align_corners=True)
            feature = self.backbone(F.grid_sample(images, grid, align_corners=True))
            seen.append(torch.cat([feature, scale[:, None].detach(), centre.detach()], 1))
            h = torch.stack(seen, 1)  # [B, t, d]
            attention = (self.query(h) @ self.key(h).mT / math.sqrt(h.shape[2])).softmax(2)  # [B, t, t]
            fused = F.relu(self.norm(self.out(attention @ self.value(h))))[:, -1]
            of_fused.append(F.cross_entropy(self.global_classifier(fused), labels))
            of_glimpse.append(F.cross_entropy(self.glimpse_classifier(feature), labels))
            if look < LOOKS - 1:
                with torch.autocast("cpu", enabled=False):
                    raw = ScaledGradient.apply(torch.sigmoid(self.locator(fused.float())))
                scale = raw[:, 0] * (HIGH - LOW) + LOW
                centre = (2 * raw[:, 1:] - 1) * (1 - scale[:, None])
        return (1 - ALPHA) * torch.stack(of_fused).mean() + ALPHA * torch.stack(of_glimpse).mean()


def plain(digits: Tensor, labels: Tensor, precision: str) -> Iterator[float]:
    """Train as the recipe says, and yield the loss after every step."""
    model = PlainMGNet().train()
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.05},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    loader = DataLoader(PlacedDigits(digits, labels), BATCH, shuffle=True)  # workers would take the cores from torch
    optimiser = torch.optim.AdamW(groups, lr=0.002)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=0.002, total_steps=40 * len(loader))
    for _ in range(40):
        for images, targets in loader:
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                loss = model(images, targets)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            yield loss.item()


def ours(digits: Tensor, labels: Tensor, precision: str) -> Iterator[float]:
    """The training of `glimpsezoo train mgnet.tmnist.wide`, from the placement of digits to the progress bar's numbers."""
    from glimpsezoo.data import DataInfo, placed
    from glimpsezoo.evaluation.environment import keep_freed_memory
    from glimpsezoo.specs import ModelSpec, load_string
    from glimpsezoo.training.job import TrainingJob
    from glimpsezoo.training.loop import train
    from glimpsezoo.zoo.names import data_spec
    from glimpsezoo.zoo.plugins import registry
    from glimpsezoo.zoo.recipes import read_recipe

    keep_freed_memory()
    spec = registry().find(ModelSpec, "mgnet")
    recipe, task = read_recipe(spec, "mgnet.tmnist.wide").override({"batch_size": BATCH, "precision": precision}), data_spec("tmnist").task
    assert task is not None
    info = DataInfo(name="tmnist", source="made", revision=None, fingerprint="0", split="train", transform="")
    glyphs, turned = placed.Glyphs(digits, labels, torch.arange(len(labels))), placed.Distortion(rotation=8, zoom=0.08)
    data = placed.PlacedDigits(info, task, glyphs, placed.Placing(canvas=CANVAS), turned)
    model, step = load_string(spec.model)(load_string(spec.config).parse(recipe.settings, owner="mgnet"), task), spec.training_step
    with TemporaryDirectory() as folder:
        job = TrainingJob(
            model=model, training_step=load_string(str(step)), recipe=recipe, train=data, calibration=data, folder=Path(folder)
        )
        with closing(train(job)) as lines:
            for line in lines:
                yield sum(line.losses.values())


class Side:
    """A training in a process of its own, which takes a turn of `STEPS` steps when it is asked to."""

    def __init__(self, name: str, precision: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, name, precision], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def turn(self) -> float:
        """Seconds of a step."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def close(self) -> None:
        self.process.communicate()


@pytest.mark.benchmark(group="training")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_step_against_a_plain_script(benchmark: Any, precision: str) -> None:
    with ExitStack() as both:
        mine, other = (both.enter_context(closing(Side(name, precision))) for name in ("ours", "plain"))
        mine.turn(), other.turn()  # warm-up
        spent: dict[str, list[float]] = {"ours": [], "plain": []}
        benchmark.pedantic(lambda: spent["ours"].append(mine.turn()), setup=lambda: spent["plain"].append(other.turn()), rounds=TURNS)
    medians = {name: statistics.median(times) for name, times in spent.items()}
    ratios = sorted(b / a for a, b in zip(spent["ours"], spent["plain"], strict=True))
    benchmark.extra_info["plain / ours"] = medians["plain"] / medians["ours"]
    print(
        f"{precision}: a step takes {1e3 * medians['ours']:.1f} ms, of the plain script {1e3 * medians['plain']:.1f}: "
        f"{medians['plain'] / medians['ours']:.2f} x (turns: {ratios[0]:.2f} to {ratios[-1]:.2f})"
    )


def test_both_compute_the_same_loss_and_gradient() -> None:
    from glimpsezoo import Noise, TrainingPhase, create_model
    from glimpsezoo.specs import load_string
    from glimpsezoo.zoo.names import data_spec

    torch.manual_seed(0)
    task = data_spec("tmnist").task
    settings = {"backbone": "cnn4", "downsample": 4, "glimpses": LOOKS, "biases": True, "gradient_scale": 0.3, "scale": (LOW, HIGH)}
    model, own = create_model("mgnet", task=task, **settings).train(), PlainMGNet()
    own.load_state_dict(model.state_dict())
    images, labels = torch.rand(6, 1, CANVAS, CANVAS), torch.arange(6)
    noise = Noise.of(0, torch.arange(6))
    phase = TrainingPhase(name="joint", options={}, step=0, steps=1, epoch=0, noise=noise, memory={})
    found = sum(load_string("glimpsezoo_mgnet.training:mgnet_step")(model, images, labels, phase).values())
    expected = own(images, labels)
    torch.testing.assert_close(found, expected)
    found.backward()
    expected.backward()
    gradients = {name: parameter.grad for name, parameter in own.named_parameters()}
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-3, atol=1e-6)


def take_turns(name: str, precision: str) -> None:
    """Run in the subprocess: a turn for every line of the standard input."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)
    digits, labels = torch.randint(256, (DIGITS, SIDE, SIDE), dtype=torch.uint8), torch.randint(10, (DIGITS,))
    with closing({"ours": ours, "plain": plain}[name](digits, labels, precision)) as steps:  # pyright: ignore
        for _ in sys.stdin:
            start = time.perf_counter()
            for _ in range(STEPS):
                next(steps)
            print((time.perf_counter() - start) / STEPS, flush=True)


if __name__ == "__main__":
    take_turns(*sys.argv[1:])
