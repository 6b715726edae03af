"""A ResNet-18 at 224 px, and MGNet with the same network on 4 glimpses of 96 px, which needs 1.35 times fewer MACs.

pytest benchmarks/test_resnet.py --benchmark-json out.json && python benchmarks/ratios.py out.json

Weights are untrained, which changes no time. Exits are simulated: of 8 images, 4 exit after the first look, 2 after the second, 1 after
the third, 1 after the fourth.
"""

import itertools
from contextlib import ExitStack

import pytest
import timm
import torch
from contenders import SHORT, compiled

import glimpsezoo as gz
from glimpsezoo.evaluation.environment import channels_last

TASK = gz.Task((224, 224), 3, tuple(f"c{number:03}" for number in range(1000)))
EXITS = (1, 2, 1, 3, 1, 2, 1, 4)
ROUNDS, TURN = {1: 15, 64: 7}, {1: 16, 64: 1}


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


def mgnet():
    return gz.create_model("mgnet", task=TASK, backbone="resnet18", glimpses=4, downsample=7 / 3)


@pytest.mark.benchmark(group="resnet18")
@pytest.mark.parametrize("batch", [1, 64])
def test_resnet(side_by_side, batch):
    """timm's ResNet-18 as one would run it by hand, channels-last; and models in the loop, within `gz.inference` unless they are eager."""
    net, eager, rule = timm.create_model("resnet18").eval(), mgnet().eval(), Given()
    channels_last(net)
    models = {"ResNet-18 within inference": gz.create_model("timm:resnet18", task=TASK), "MGNet": mgnet()}
    if not SHORT:  # compiling takes minutes
        models |= {"ResNet-18 compiled": compiled(gz.create_model("timm:resnet18", task=TASK)), "MGNet compiled": compiled(mgnet())}
    contenders = {"ResNet-18": net, "MGNet eager": lambda images: gz.rollout(eager, images)}
    contenders |= {name: lambda images, model=model: gz.rollout(model, images) for name, model in models.items()}
    if batch == 1:
        contenders["MGNet with simulated exits"] = lambda images: gz.rollout(models["MGNet"], images, exit_rule=rule)
    inputs = [torch.rand(batch, 3, 224, 224).contiguous(memory_format=torch.channels_last) for _ in range(4 * TURN[batch])]
    with ExitStack() as stack:
        for model in models.values():
            stack.enter_context(gz.inference(model))
        side_by_side(contenders, inputs, ROUNDS[batch], TURN[batch])
