"""From the authors' released checkpoints (https://github.com/siahuat0727/MGNet, PyTorch Lightning files) to this plugin's MGNet."""

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from glimpsezoo import GlimpseZooError, Task, read_checkpoint
from glimpsezoo_mgnet.backbones import SMALL_CNN
from glimpsezoo_mgnet.config import MGNetConfig
from glimpsezoo_mgnet.model import MGNet

# Ours -> theirs: the beginning of a tensor's name, after their prefix `model.`. The backbone has torchvision's names, as in timm.
_MODULES = {
    "backbone": "backbone",
    "out": "feat_fusion.mha.out_proj",
    "norm": "feat_fusion.norm",
    "locator": "loc_network.fc",
    "global_classifier": "global_fc.fc",
    "glimpse_classifier": "glimpse_fc.fc",
}
_PROJECTIONS = ("query", "key", "value")  # thirds of nn.MultiheadAttention's in_proj, in this order
_HYPER_PARAMETERS = {"model": "backbone", "n_iter": "glimpses", "scale": "downsample", "s": "gradient_scale", "alpha": "alpha"}
_VANILLA = "vanilla"  # their name of the small CNN
_CLASSIFIER, _FIRST_CONVOLUTION = "global_fc.fc.weight", "backbone.conv1.weight"


def importer(checkpoint: Path, settings: Mapping[str, Any]) -> tuple[MGNetConfig, Task, dict[str, Tensor], list[str]]:
    """Convert a released checkpoint. `settings` (from `--set`) override its hyper-parameters.

    Returns the config (with biases), the task (classes and channels from the tensors; image size and normalisation as in the authors'
    code), the tensors under this model's names, and notes on what the file does not say. Raises `GlimpseZooError` for a file that is
    not a Lightning checkpoint, for hyper-parameters that this model does not have, and for tensors that are missing, extra or of
    another shape.
    """
    tensors, hyper_parameters, taken_off = _read(checkpoint)
    for name, rank in ((_CLASSIFIER, 2), (_FIRST_CONVOLUTION, 4)):
        if name not in tensors or tensors[name].ndim != rank:
            raise GlimpseZooError(f"expected a checkpoint of MGNet with a tensor {name!r} of rank {rank}, but {checkpoint.name} has none")
    values, notes = _settings(hyper_parameters, tensors)
    notes += taken_off
    config = MGNetConfig.parse({**values, **settings}, owner="mgnet")
    task = _task(tensors)
    notes.append(f"images of {task.image_size[0]} px, as the authors' code for these weights takes them")
    return config, task, _renamed(tensors, MGNet(config, task).state_dict()), notes


def _read(checkpoint: Path) -> tuple[dict[str, Tensor], dict[str, Any], list[str]]:
    """Tensors by the authors' names, hyper-parameters and notes. Only plain values and a Namespace are unpickled."""
    found = read_checkpoint(checkpoint, (_CLASSIFIER, _FIRST_CONVOLUTION), usual="state_dict.model.", allowed=[Namespace])
    said = found.beside.get("hyper_parameters")
    hyper_parameters = vars(said) if isinstance(said, Namespace) else said if isinstance(said, Mapping) else {}
    notes = list(found.notes)
    if said is not None and hyper_parameters is not said and not isinstance(said, Namespace):
        notes.append(f"hyper_parameters are a {type(said).__name__}, which is not read")
    return found.tensors, {str(name): value for name, value in hyper_parameters.items()}, notes


def _settings(hyper_parameters: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> tuple[dict[str, Any], list[str]]:
    """The authors' hyper-parameters as this model's settings."""
    if hyper_parameters.get("trans_method", "tight-crop") != "tight-crop" or hyper_parameters.get("no_spatial_clue"):
        raise GlimpseZooError(
            "expected a checkpoint of the paper's MGNet, got one of the authors' explorations (trans_method, no_spatial_clue)"
        )
    values: dict[str, Any] = {ours: hyper_parameters[name] for name, ours in _HYPER_PARAMETERS.items() if name in hyper_parameters}
    notes = [f"the file does not say {ours}: the default is taken" for ours in _HYPER_PARAMETERS.values() if ours not in values]
    if {"scale_min", "scale_max"} <= hyper_parameters.keys():
        values["scale"] = (hyper_parameters["scale_min"], hyper_parameters["scale_max"])
    if values.get("backbone") == _VANILLA:
        values["backbone"] = SMALL_CNN
    if not any(name.startswith(_MODULES["glimpse_classifier"]) for name in tensors):
        values["alpha"] = 0.0  # the authors' model has no glimpse classifier then either
        notes.append("the file has no glimpse classifier (it is for training only): alpha is 0")
    elif not values.get("alpha"):
        values.pop("alpha", None)
    return {**values, "biases": True}, notes


def _task(tensors: Mapping[str, Tensor]) -> Task:
    """Classes are numbered, because the file does not name them. The authors normalise by the usual constants of ImageNet and MNIST."""
    classes = tuple(str(label) for label in range(tensors[_CLASSIFIER].shape[0]))
    if tensors[_FIRST_CONVOLUTION].shape[1] == 1:
        return Task((112, 112), 1, classes, mean=(0.1307,), std=(0.3081,))
    return Task((224, 224), 3, classes, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def _renamed(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the names of `wanted`. Raises `GlimpseZooError` unless all are there in the right shape, and no others."""
    used, result = set(), {}
    for name, like in wanted.items():
        module, _, rest = name.partition(".")
        third = _PROJECTIONS.index(module) if module in _PROJECTIONS else None
        source = f"feat_fusion.mha.in_proj_{rest}" if third is not None else f"{_MODULES[module]}.{rest}"
        if source not in tensors:
            raise GlimpseZooError(f"the checkpoint lacks the tensor {source!r}: is it complete, and of the backbone that it names?")
        shape = like.shape if third is None else (3 * like.shape[0], *like.shape[1:])
        if tensors[source].shape != shape:
            raise GlimpseZooError(
                f"expected the tensor {source!r} of shape {tuple(shape)}, got {tuple(tensors[source].shape)}: check the backbone"
            )
        result[name] = tensors[source] if third is None else tensors[source].chunk(3)[third].clone()
        used.add(source)
    extra = [n for n in tensors if n not in used and not n.startswith(_MODULES["glimpse_classifier"])]
    if extra:
        raise GlimpseZooError(f"the checkpoint has {len(extra)} tensors that this model lacks, such as {extra[0]!r}: check the backbone")
    return result
