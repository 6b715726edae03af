"""The importer, on files built to the layout of the two public ones."""

from pathlib import Path
from typing import Any

import pytest
import torch
from glimpsezoo_ram.importer import importer
from glimpsezoo_ram.model import RAM
from torch import Tensor

from glimpsezoo import GlimpseZooError, Noise, rollout

SHAPES = {
    "sensor.fc1": (128, 64), "sensor.fc2": (128, 2), "sensor.fc3": (256, 128), "sensor.fc4": (256, 128), "rnn.i2h": (256, 256),
    "rnn.h2h": (256, 256), "locator.fc": (2, 256), "classifier.fc": (10, 256), "baseliner.fc": (1, 256),
}  # fmt: skip


@pytest.fixture
def weights() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    matrices = {f"{name}.weight": torch.randn(shape, generator=generator) / shape[1] ** 0.5 for name, shape in SHAPES.items()}
    return matrices | {f"{name}.bias": torch.randn(shape[0], generator=generator) / 5 for name, shape in SHAPES.items()}


def written(folder: Path, weights: dict[str, Tensor], **beside: Any) -> Path:
    path = folder / "ram_6_8x8_2_ckpt.pth.tar"
    optimiser = {"state": {0: {"exp_avg": torch.zeros(128, 64)}}, "param_groups": [{"lr": 3e-4, "params": [0]}]}
    torch.save({"epoch": 25, "model_state": weights, "optim_state": optimiser, "best_valid_acc": 98.38, **beside}, path)
    return path


def plain(w: dict[str, Tensor], image: Tensor, noise: Noise, run: int) -> Tensor:
    """The log-probabilities of one run, as those weights were trained to make them: six glimpses, the image padded after normalising."""

    def linear(name: str, x: Tensor) -> Tensor:
        return w[f"{name}.weight"] @ x + w[f"{name}.bias"]

    padded = torch.nn.functional.pad((image - 0.1307) / 0.3081, (8, 8, 8, 8))
    place, hidden = 2 * noise.uniform(0, 2 * run + 2)[0, -2:] - 1, torch.zeros(256)
    for step in range(1, 7):
        x, y = (int(0.5 * (along + 1) * 28) - 4 + 8 for along in place.tolist())
        patch = padded[0, y : y + 8, x : x + 8].flatten()
        what = linear("sensor.fc3", linear("sensor.fc1", patch).relu())
        where = linear("sensor.fc4", linear("sensor.fc2", place).relu())
        hidden = (linear("rnn.i2h", (what + where).relu()) + linear("rnn.h2h", hidden)).relu()
        place = (linear("locator.fc", hidden).tanh() + 0.17 * noise.normal(step, 2 * run + 2)[0, -2:]).tanh()
    return linear("classifier.fc", hidden).log_softmax(0)


def test_an_imported_model_does_what_the_weights_were_trained_to_do(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    config, task, tensors, notes = importer(written(tmp_path, weights), {})
    assert (config.glimpses, config.patch, config.scales, config.evaluations, task.image_size) == (6, 8, 1, 10, (28, 28))
    assert notes
    model = RAM(config, task).eval()
    model.load_state_dict(tensors)
    images = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    found = rollout(model, images, noise=Noise.of(5, torch.arange(3))).logits
    for i, image in enumerate(images):
        expected = torch.stack([plain(weights, image, Noise.of(5, torch.tensor([i])), run) for run in range(10)]).mean(0)
        torch.testing.assert_close(found[i], expected, rtol=1e-4, atol=1e-4)


def test_settings_of_the_user_win(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    config = importer(written(tmp_path, weights), {"evaluations": "1", "decide": "mode"})[0]
    assert (config.evaluations, config.decide) == (1, "mode")


@pytest.mark.parametrize(
    ("change", "settings", "words"),
    [
        ({"locator.fc.weight": None}, {}, "'locator.fc.weight'.*has none"),
        ({"locator.fc2.weight": torch.zeros(2, 2)}, {}, "'locator.fc2.weight' as well"),
        ({"rnn.i2h.weight": torch.zeros(128, 256)}, {}, r"'rnn.i2h.weight' of shape \(256, 256\), got \(128, 256\)"),
        ({}, {"scales": "abc"}, "--set scales=abc for ram"),
        ({}, {"scales": "0"}, "--set scales=0 for ram"),
        ({}, {"patch": "12"}, r"'sensor.fc1.weight' of shape \(128, 144\), got \(128, 64\): correct the settings patch"),
    ],
)
def test_another_layout_is_refused_in_one_line(
    tmp_path: Path, weights: dict[str, Tensor], change: dict[str, Tensor | None], settings: dict[str, str], words: str
) -> None:
    changed = {name: tensor for name, tensor in (weights | change).items() if tensor is not None}
    with pytest.raises(GlimpseZooError, match=words) as caught:
        importer(written(tmp_path, changed), settings)
    assert "\n" not in str(caught.value)


def test_code_in_a_file_is_not_run(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    with pytest.raises(GlimpseZooError, match="could run code"):
        importer(written(tmp_path, weights, extra=Path("x")), {})
