"""Exported graphs under onnxruntime beside the model within gz.inference, each with the threads of one core.

OMP_NUM_THREADS=1 taskset -c 0 pytest benchmarks/test_export.py --benchmark-json out.json && python benchmarks/ratios.py out.json
"""

import numpy as np
import pytest
import torch
from contenders import SHORT

import glimpsezoo as gz
from glimpsezoo.workflows.onnx_files import runner

CARDS = ("mgnet.digits", "ranzato.digits", "cnn4.digits")
RULE = gz.Confidence(threshold=0.9)
ROUNDS = 15


@pytest.fixture(scope="module", params=CARDS[:1] if SHORT else CARDS)
def card(request, tmp_path_factory):
    """A model, what runs its graphs, and test images."""
    model, folder = gz.load(request.param), tmp_path_factory.mktemp("exported")
    ways = {"ONNX": runner(gz.export(model, folder / "all.onnx").path)}
    if model.steps > 1:
        ways["ONNX with exits"] = runner(gz.export(model, folder / "exits.onnx", exit_rule=RULE).path)
        ways["ONNX step by step"] = runner(gz.export(model, folder / "steps", exit_rule=RULE).path)
    digits = gz.open_data("digits")
    return model, ways, torch.stack([digits[int(index)].image for index in np.linspace(0, len(digits) - 1, 256)])


@pytest.mark.benchmark(group="export")
@pytest.mark.parametrize("batch", [1, 32, 256])
def test_export(side_by_side, card, batch):
    """Each round classifies the same images, batch after batch."""
    model, ways, images = card
    chunks = images[: max(batch, 32)].split(batch)

    def each(run):
        return lambda chunks: [run(chunk) for chunk in chunks]

    contenders = {name: each(run) for name, run in ways.items()}
    contenders["eager"] = each(lambda chunk: gz.rollout(model, chunk))
    if model.steps > 1:
        contenders["eager with exits"] = each(lambda chunk: gz.rollout(model, chunk, exit_rule=RULE))
    with gz.inference(model):
        side_by_side(contenders, [chunks], ROUNDS)
