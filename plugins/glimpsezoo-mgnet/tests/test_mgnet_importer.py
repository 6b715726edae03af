"""Released checkpoints: a file with their tensor names gives the outputs of a reference made of torch's modules."""

import io
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from glimpsezoo_mgnet.backbones import SmallCNN
from glimpsezoo_mgnet.importer import importer
from glimpsezoo_mgnet.model import MGNet
from torch import Tensor, nn

from glimpsezoo import GlimpseZooError, Record, rollout


class Released(nn.Module):
    """The published model with its published names; of this plugin it only uses the four convolutions of the small CNN."""

    def __init__(self, backbone: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.feat_fusion = nn.ModuleDict({"mha": nn.MultiheadAttention(width + 3, 1), "norm": nn.LayerNorm(width + 3)})
        self.loc_network = nn.ModuleDict({"fc": nn.Linear(width + 3, 3)})
        self.global_fc = nn.ModuleDict({"fc": nn.Linear(width + 3, classes)})
        self.glimpse_fc = nn.ModuleDict({"fc": nn.Linear(width, classes)})
        for name, tensor in self.state_dict().items():  # no bias, gain or statistic may be zero or one
            if tensor.is_floating_point() and tensor.ndim == 1:
                noise = torch.rand_like(tensor)
                tensor.add_(noise if "running_var" in name else noise - 0.5)
        self.eval()

    def forward(self, images: Tensor, glimpses: int, side: int) -> tuple[Tensor, Tensor]:
        """Normalised images [B, C, H, W] -> logits [B, T, classes], affine parameters (s, x, y) [B, T, 3]; recomputes the fusion."""
        parameters = torch.tensor([1.0, 0.0, 0.0]).expand(len(images), 3)
        history, logits, places = [], [], []
        for _ in range(glimpses):
            s, x, y = parameters.unbind(1)
            zero = torch.zeros_like(s)
            theta = torch.stack([torch.stack([s, zero, x], 1), torch.stack([zero, s, y], 1)], 1)
            grid = F.affine_grid(theta, [len(images), images.shape[1], side, side], align_corners=True)
            h = self.backbone(F.grid_sample(images, grid, align_corners=True))
            places.append(parameters)
            history.append(torch.cat([h, parameters], 1))
            sequence = torch.stack(history)  # [t, B, d]
            attended, _ = self.feat_fusion["mha"](sequence, sequence, sequence, need_weights=False)
            fused = F.relu(self.feat_fusion["norm"](attended)[-1])
            logits.append(self.global_fc["fc"](fused))
            raw = torch.sigmoid(self.loc_network["fc"](fused))
            scale = raw[:, :1] * 0.3 + 0.2
            parameters = torch.cat([scale, 2 * (raw[:, 1:] - 0.5) * (1 - scale)], 1)
        return torch.stack(logits, 1), torch.stack(places, 1)


def resnet18(classes: int = 7) -> Released:
    backbone = torchvision.models.resnet18(weights=None)
    backbone.fc = nn.Identity()  # type: ignore[assignment]
    return Released(backbone, 512, classes)


HYPER_PARAMETERS = {
    "model": "resnet18",
    "n_iter": 4,
    "scale": 2.33,
    "scale_min": 0.2,
    "scale_max": 0.5,
    "s": 0.02,
    "alpha": 0.6,
    "num_class": 7,
}

VANILLA = {**HYPER_PARAMETERS, "model": "vanilla", "n_iter": 3, "scale": 4.0, "num_class": 10}


def save(path: Path, tensors: dict[str, Tensor], hyper_parameters: Any) -> Path:
    """As PyTorch Lightning writes it."""
    content = {"epoch": 3, "state_dict": tensors, "hyper_parameters": hyper_parameters, "pytorch-lightning_version": "1.1.0"}
    torch.save(content, path)
    return path


def small_cnn() -> Released:
    return Released(SmallCNN(1), 128, 10)


def released_tensors(model: Released) -> dict[str, Tensor]:
    return {f"model.{name}": tensor.clone() for name, tensor in model.state_dict().items()}


def run_imported(path: Path, images: Tensor) -> tuple[Tensor, Tensor, MGNet]:
    config, task, tensors, _ = importer(path, {})
    model = MGNet(config, task).eval()
    model.load_state_dict(tensors)
    with torch.no_grad():
        trace = rollout(model, images, record=Record(every_step=True))
    places = [torch.cat([look.decision.regions.scale[:, None], look.decision.regions.centre], 1) for look in trace.looks]
    return trace.logits_by_step(), torch.stack(places, 1), model


def test_an_imported_resnet_gives_the_references_outputs_at_every_step(tmp_path: Path) -> None:
    torch.manual_seed(0)
    reference = resnet18()
    images = torch.rand(2, 3, 224, 224)
    logits, places, model = run_imported(save(tmp_path / "a.ckpt", released_tensors(reference), Namespace(**HYPER_PARAMETERS)), images)
    normalised = torchvision.transforms.functional.normalize(images, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    with torch.no_grad():
        expected, expected_places = reference(normalised, 4, 96)
    assert model.config.glimpses == 4
    assert model.glimpse_size == (96, 96)
    assert (expected[:, 0] - expected[:, 3]).abs().max() > 0.01  # the steps differ, so that equality means something
    torch.testing.assert_close(places, expected_places, atol=1e-4, rtol=0)
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)
    h = torch.rand(2, 512)
    torch.testing.assert_close(model.glimpse_classifier(h), reference.glimpse_fc["fc"](h))  # type: ignore[misc]


def test_an_imported_small_cnn_gives_the_references_outputs_at_every_step(tmp_path: Path) -> None:
    torch.manual_seed(1)
    reference = small_cnn()
    hyper_parameters = Namespace(**VANILLA)
    images = torch.rand(3, 1, 112, 112)
    logits, places, model = run_imported(save(tmp_path / "a.ckpt", released_tensors(reference), hyper_parameters), images)
    with torch.no_grad():
        expected, expected_places = reference((images - 0.1307) / 0.3081, 3, 28)
    assert model.config.backbone == "cnn4"
    torch.testing.assert_close(places, expected_places, atol=1e-4, rtol=0)
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)


def test_what_the_file_says_and_does_not_say(tmp_path: Path) -> None:
    tensors = {name: t for name, t in released_tensors(small_cnn()).items() if "glimpse_fc" not in name}
    tensors["accs.0.correct"] = torch.zeros(1)  # of Lightning, not of the model
    said = Namespace(model="vanilla", n_iter=2, scale=4.0)
    path = save(tmp_path / "a.ckpt", tensors, said)
    config, task, _, notes = importer(path, {"glimpses": "3", "policy": "random"})
    assert (config.glimpses, config.policy, config.biases, config.alpha) == (3, "random", True, 0.0)
    assert (task.channels, len(task.classes)) == (1, 10)
    assert any("glimpse classifier" in note for note in notes)
    assert any("gradient_scale" in note for note in notes)


def corrupt(change: str, tensors: dict[str, Tensor], said: dict[str, Any]) -> None:
    if change == "missing attention":
        del tensors["model.feat_fusion.mha.in_proj_weight"]
    elif change == "missing backbone":
        del tensors["model.backbone.conv2.weight"]
    elif change == "no classifier":
        del tensors["model.global_fc.fc.weight"]
    elif change == "shape":
        tensors["model.loc_network.fc.weight"] = torch.zeros(6, 131)
    elif change == "extra":
        tensors["model.backbone.layer9.weight"] = torch.zeros(1)
    elif change == "exploration":
        said["trans_method"] = "naive"
    else:
        said["model"] = change


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ("missing attention", "lacks the tensor 'feat_fusion.mha.in_proj_weight'"),
        ("missing backbone", "lacks the tensor 'backbone.conv2.weight'"),
        ("no classifier", "'global_fc.fc.weight'"),
        ("shape", r"of shape \(3, 131\), got \(6, 131\)"),
        ("extra", "'backbone.layer9.weight'"),
        ("exploration", "trans_method"),
        ("resnet19", "'resnet18'"),
        ("resnet18", "expected the tensor .* check the backbone|lacks the tensor"),
    ],
)
def test_unfit_checkpoints_are_refused_in_one_line(tmp_path: Path, change: str, part: str) -> None:
    tensors, said = released_tensors(small_cnn()), dict(VANILLA)
    corrupt(change, tensors, said)
    with pytest.raises(GlimpseZooError, match=part) as caught:
        importer(save(tmp_path / "a.ckpt", tensors, Namespace(**said)), {})
    assert "\n" not in str(caught.value)


class Innocent:
    """A class that is not allowed."""


def files_that_are_none() -> dict[str, bytes]:
    whole = io.BytesIO()
    torch.save({"state_dict": {"model.x": torch.zeros(1000)}}, whole)
    code, bare, numbers = io.BytesIO(), io.BytesIO(), io.BytesIO()
    torch.save({"state_dict": {}, "hyper_parameters": Innocent()}, code)
    torch.save({"weight": torch.zeros(2)}, bare)
    torch.save({"state_dict": {"epoch": 3}}, numbers)
    saved = {"code": code.getvalue(), "bare": bare.getvalue(), "numbers": numbers.getvalue()}
    return {"text": b"not a checkpoint at all", "empty": b"", "truncated": whole.getvalue()[:700], **saved}


@pytest.mark.parametrize("kind", ["text", "empty", "truncated", "code", "bare", "numbers"])
def test_files_that_are_no_lightning_checkpoint_are_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "some.ckpt"
    path.write_bytes(files_that_are_none()[kind])
    with pytest.raises(GlimpseZooError, match=r"expected a checkpoint .*some\.ckpt") as caught:
        importer(path, {})
    assert "\n" not in str(caught.value)
    assert ("Innocent" in str(caught.value)) == (kind == "code")


def plain(reference: Released) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in reference.state_dict().items()}


def renamed(tensors: dict[str, Tensor], before: str, inside: str = "") -> dict[str, Tensor]:
    """With `before` in front of every name, and `inside` behind the name of the backbone."""
    return {before + name.replace("backbone.", f"backbone.{inside}", 1): tensor for name, tensor in tensors.items()}


WRAPPED = {
    "as Lightning writes it": (lambda raw, ema: {"state_dict": renamed(raw, "model.")}, ""),
    "DDP": (lambda raw, ema: {"state_dict": renamed(raw, "module.model.")}, "module."),
    "DDP inside": (lambda raw, ema: {"state_dict": renamed(raw, "model.module.")}, "module."),
    "DDP around a part": (lambda raw, ema: {"state_dict": renamed(raw, "model.", "module.")}, "module."),
    "compiled": (lambda raw, ema: {"state_dict": renamed(raw, "_orig_mod.model.")}, "_orig_mod."),
    "compiled inside": (lambda raw, ema: {"state_dict": renamed(raw, "model.", "_orig_mod.")}, "_orig_mod."),
    "compiled and DDP": (lambda raw, ema: {"model": renamed(raw, "module._orig_mod.")}, "module._orig_mod."),
    "bare": (lambda raw, ema: renamed(raw, ""), ""),
    "EMA alone": (lambda raw, ema: {"state_dict": renamed(ema, "ema_model.model.")}, "averaged over the training"),
    "EMA beside": (lambda raw, ema: {"state_dict": renamed(raw, "model."), "state_dict_ema": ema}, "averaged weights"),
    "EMA in DDP beside": (lambda raw, ema: {"model": raw, "model_ema": renamed(ema, "module.")}, "averaged weights"),
    "EMA among them": (lambda raw, ema: {"state_dict": {**renamed(raw, "model."), **renamed(ema, "model.ema.")}}, "averaged weights"),
    "a lone EMA module": (lambda raw, ema: {"state_dict": {**renamed(ema, "module."), "n_averaged": torch.tensor(3)}}, "AveragedModel"),
}


@pytest.mark.parametrize("how", list(WRAPPED))
def test_what_a_training_wrapped_around_the_names_is_taken_off_and_said(tmp_path: Path, how: str) -> None:
    wrap, part = WRAPPED[how]
    torch.manual_seed(2)
    raw = plain(small_cnn())
    ema = {name: tensor + 1 for name, tensor in raw.items()}
    content = wrap(raw, ema)
    torch.save({**content, "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}, "hyper_parameters": VANILLA}, tmp_path / "a.ckpt")
    _, _, tensors, notes = importer(tmp_path / "a.ckpt", {})
    expected = ema if "EMA" in how else raw
    torch.testing.assert_close(tensors["backbone.conv1.weight"], expected["backbone.conv1.weight"])
    torch.testing.assert_close(tensors["global_classifier.weight"], expected["global_fc.fc.weight"])
    said = [note for note in notes if "stripped" in note or "averaged" in note]
    assert part in " ".join(said)
    assert bool(said) == bool(part)


def test_two_sets_of_weights_of_which_none_is_named_are_not_chosen_from(tmp_path: Path) -> None:
    raw = plain(small_cnn())
    torch.save({"teacher": raw, "student": raw, "hyper_parameters": VANILLA}, tmp_path / "a.ckpt")
    with pytest.raises(GlimpseZooError, match=r"got a\.ckpt with 2, under 'teacher\.' and 'student\.'"):
        importer(tmp_path / "a.ckpt", {})


@pytest.mark.parametrize("said", [3, "resnet", [1], {1: 2}])
def test_hyper_parameters_of_another_kind_are_noted(tmp_path: Path, said: Any) -> None:
    torch.save({"state_dict": released_tensors(small_cnn()), "hyper_parameters": said}, tmp_path / "a.ckpt")
    _, _, _, notes = importer(tmp_path / "a.ckpt", {"backbone": "cnn4"})
    assert isinstance(said, dict) or any("which is not read" in note for note in notes)
