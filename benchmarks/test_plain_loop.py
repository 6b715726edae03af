"""MGNet in the loop of glimpsezoo against a loop as one would write it from the paper's equations, without a cache of keys and values.

pytest benchmarks/test_plain_loop.py --benchmark-json out.json && python benchmarks/ratios.py out.json
"""

import copy

import pytest
import torch
import torch.nn.functional as F
from contenders import SHORT, compiled

import glimpsezoo as gz

MODELS = {
    "cnn4": ({"backbone": "cnn4", "glimpses": 5, "downsample": 4}, gz.Task((112, 112), 1, tuple("0123456789"))),
    "resnet18": ({"backbone": "resnet18", "glimpses": 4, "downsample": 7 / 3}, gz.Task((224, 224), 3, tuple("0123456789"))),
}
ROUNDS = {"cnn4": {1: 60, 64: 60}, "resnet18": {1: 15, 64: 7}}
TURN = {1: 16, 64: 1}


def plain_loop(model, images):
    """Equations 1 to 4 as they stand: the attention of all features so far is computed anew at every step."""
    low, high = model.config.scale
    scale, place = images.new_ones(len(images)), images.new_zeros(len(images), 2)
    features = []
    for _ in range(model.steps):
        zero = torch.zeros_like(scale)
        transform = torch.stack([scale, zero, place[:, 0], zero, scale, place[:, 1]], 1).view(-1, 2, 3)
        grid = F.affine_grid(transform, [*images.shape[:2], *model.glimpse_size], align_corners=True)
        glimpse = model.normalise(F.grid_sample(images, grid, align_corners=True))
        features.append(torch.cat([model.backbone(glimpse), scale[:, None], place], 1))
        h = torch.stack(features, 1)
        weights = (model.query(h) @ model.key(h).mT / h.shape[2] ** 0.5).softmax(2)
        fused = F.relu(model.norm(model.out(weights @ model.value(h))))[:, -1]
        raw = model.locator(fused).sigmoid()
        scale = raw[:, 0] * (high - low) + low
        place = (2 * raw[:, 1:] - 1) * (1 - scale[:, None])
    return model.global_classifier(fused)


def plainly_laid_out(model):
    """Weights in torch's default order, as a network has them that nobody rearranged.

    `contiguous` would keep the strides of a convolution with one input channel, which fit both orders. Its output would be channels-last,
    and with it the whole network.
    """
    for tensor in model.parameters():
        tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)
    return model


@pytest.mark.benchmark(group="plain loop")
@pytest.mark.parametrize("batch", [1, 64])
@pytest.mark.parametrize("name", MODELS)
def test_loop(side_by_side, name, batch):
    settings, task = MODELS[name]
    model = gz.create_model("mgnet", task=task, **settings)
    plain, other = plainly_laid_out(copy.deepcopy(model).eval()), compiled(copy.deepcopy(model).eval())
    images = [torch.rand(batch, task.channels, *task.image_size) for _ in range(4 * TURN[batch])]
    contenders = {"plain loop": lambda images: plain_loop(plain, images), "MGNet": lambda images: gz.rollout(model, images)}
    with gz.inference(model):
        torch.testing.assert_close(plain_loop(plain, images[0]), gz.rollout(model, images[0]).logits, atol=1e-3, rtol=1e-3)
        if not SHORT:  # compiling takes minutes
            contenders["MGNet compiled"] = lambda images: gz.rollout(other, images)
        side_by_side(contenders, images, ROUNDS[name][batch], TURN[batch])
