"""A ResNet-18 at 224 px, and MGNet with the same network on 4 glimpses of 96 px, which needs 1.35 times fewer MACs.

pytest benchmarks/test_resnet.py --benchmark-json out.json && python benchmarks/ratios.py out.json

Weights are untrained, which changes no time. Exits are simulated: of 8 images, 4 exit after the first look, 2 after the second, 1 after
the third, 1 after the fourth.
"""

import itertools

import pytest
import timm
import torch

import glimpsezoo as gz
from glimpsezoo.evaluation.environment import channels_last

TASK = gz.Task((224, 224), 3, tuple(f"c{number:03}" for number in range(1000)))
EXITS = (1, 2, 1, 3, 1, 2, 1, 4)
ROUNDS = {1: 40, 64: 5}


class Given(gz.ExitRule):
    """Exits the next image of `EXITS` after its step. For batches of one image."""

    name, window = "given", 1

    def __init__(self):
        self.steps, self.step, self.last = itertools.cycle(EXITS), 0, 0

    def exits(self, logits):
        if self.step == self.last:
            self.step, self.last = 0, next(self.steps)
        self.step += 1
        return torch.tensor([self.step == self.last])


def batches(batch):
    return [torch.rand(batch, 3, 224, 224).contiguous(memory_format=torch.channels_last) for _ in range(4)]


def mgnet():
    return gz.create_model("mgnet", task=TASK, backbone="resnet18", glimpses=4, downsample=7 / 3)


@pytest.mark.benchmark(group="resnet18")
@pytest.mark.parametrize("batch", [1, 64])
def test_plain(timed, batch):
    """timm's ResNet-18 with channels-last weights, as one would run it by hand."""
    net = timm.create_model("resnet18").eval()
    channels_last(net)
    with torch.no_grad():
        timed(net, batches(batch), ROUNDS[batch])


@pytest.mark.benchmark(group="resnet18")
@pytest.mark.parametrize("batch", [1, 64])
@pytest.mark.parametrize("name", ["timm", "timm-compiled", "mgnet", "mgnet-eager", "mgnet-compiled"])
def test_rollout(timed, compiled, name, batch):
    """Through the loop, within `gz.inference`, without it (eager), or compiled."""
    model = gz.create_model("timm:resnet18", task=TASK) if name.startswith("timm") else mgnet()
    if name.endswith("-compiled"):
        model = compiled(model)
    with torch.no_grad() if name == "mgnet-eager" else gz.inference(model):
        timed(lambda images: gz.rollout(model, images), batches(batch), ROUNDS[batch])


@pytest.mark.benchmark(group="resnet18")
def test_simulated_exits(timed):
    """One image at a time, 1.9 looks on average."""
    model, rule = mgnet(), Given()
    with gz.inference(model):
        timed(lambda images: gz.rollout(model, images, exit_rule=rule), batches(1), 80)
