"""From the authors' released checkpoints (https://github.com/blackfeather-wang/GFNet-Pytorch) to this plugin's GFNet.

A file is a dictionary: four sets of tensors (`model_prime_state_dict`, `model_state_dict`, `fc`, `policy`), the name of the backbone, the
side of a patch, and what the authors measured.
"""

import math
import re
import reprlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, Field, FiniteFloat, Strict, ValidationError
from torch import Tensor

from glimpsezoo import GlimpseZooError, Published, PublishedExits, Task, read_checkpoint
from glimpsezoo_gfnet.backbones import WIDE_MOBILENET
from glimpsezoo_gfnet.config import GFNetConfig
from glimpsezoo_gfnet.model import GFNet

# Their name of a backbone -> timm's, and the side in px of the images that they tested it on.
BACKBONES = {
    "resnet50": ("resnet50", 224),
    "densenet121": ("densenet121", 224),
    "densenet169": ("densenet169", 224),
    "densenet201": ("densenet201", 224),
    "mobilenetv3_large_100": ("mobilenetv3_large_100", 224),
    "mobilenetv3_large_125": (WIDE_MOBILENET, 224),
    "efficientnet_b2": ("efficientnet_b2", 260),
    "efficientnet_b3": ("efficientnet_b3", 300),
    "regnety_600m": ("regnety_006", 224),
    "regnety_800m": ("regnety_008", 224),
    "regnety_1.6g": ("regnety_016", 224),
}
# The share of the shorter side that they tested a backbone on.
_CROPS = {"efficientnet_b3": 0.904}
_CROP = 0.875
# Our module -> their set of tensors. What is rewritten within a set is below.
_SETS = {"glance": "model_prime_state_dict", "focus": "model_state_dict", "memory": "fc", "classifiers": "fc", "locator": "policy"}
_NEEDED = {"model_name": str, "patch_size": int, "flops": (list, tuple, Tensor)}
_ANCHORS = ("policy.actor.0.weight", "policy.critic.0.weight")  # in every file
_COUNTER = "num_batches_tracked"  # of batch norms, which older versions of torch did not have

# timm's names in a RegNet -> those of pycls, which the authors used.
_REGNET = [
    (r"\.downsample\.conv\.", ".proj."),
    (r"\.downsample\.bn\.", ".bn."),
    (r"\.conv1\.conv\.", ".f.a."),
    (r"\.conv1\.bn\.", ".f.a_bn."),
    (r"\.conv2\.conv\.", ".f.b."),
    (r"\.conv2\.bn\.", ".f.b_bn."),
    (r"\.conv3\.conv\.", ".f.c."),
    (r"\.conv3\.bn\.", ".f.c_bn."),
    (r"\.se\.fc1\.", ".f.se.f_ex.0."),
    (r"\.se\.fc2\.", ".f.se.f_ex.2."),
    (r"^head\.fc\.", "fc."),
]

_Number = Annotated[FiniteFloat, Strict()]
_Cost = Annotated[_Number, Field(gt=0, lt=1e30)]
_Percent = Annotated[_Number, Field(ge=0, le=100)]


class _Measured(BaseModel):
    """What the authors measured, under their names. Only the costs are in every file."""

    flops: tuple[_Cost, ...] = Field(description="a list of positive numbers")
    """MACs of each look in a unit that the file does not say."""
    anytime_classification: tuple[_Percent, ...] = Field((), description="a list of accuracies from 0 to 100 %")
    """Accuracy after each look."""
    dynamic_threshold: tuple[tuple[_Number, ...], ...] = Field((), description="a table of numbers")
    """Thresholds of early exits: budgets x looks."""
    budgeted_batch_classification: tuple[tuple[_Cost, ...], tuple[_Percent, ...]] = Field(
        ((), ()), description="positive MACs and accuracies from 0 to 100 %"
    )
    """The mean cost at each budget, and the accuracy."""


def importer(
    checkpoint: Path, settings: Mapping[str, Any]
) -> tuple[GFNetConfig, Task, dict[str, Tensor], list[str], Published, dict[str, float]]:
    """Convert a released checkpoint. `settings` (from `--set`) override what the file says.

    Returns the config, the task (classes from the tensors; image size and normalisation as in the authors' code), the tensors under this
    model's names, notes, what the authors measured, and their settings of the data. Raises `GlimpseZooError` for a file of another layout
    or another backbone, and for tensors that are missing, extra or of another shape.
    """
    content = read_checkpoint(checkpoint, _ANCHORS, usual="policy.").beside
    sets = {name: _without_wrapper(content.get(name)) for name in dict.fromkeys(_SETS.values())}
    lacking = [name for name, tensors in sets.items() if not tensors]
    lacking += [name for name, kind in _NEEDED.items() if not isinstance(content.get(name), kind) or _empty(content[name])]
    if lacking:
        raise GlimpseZooError(
            f"expected a released checkpoint of GFNet with {lacking[0]!r}, got {checkpoint.name} without: give one of the authors' 14 files"
        )
    name = content["model_name"]
    if name not in BACKBONES and "backbone" not in settings:
        known = ", ".join(BACKBONES)
        raise GlimpseZooError(f"expected a checkpoint with one of the authors' backbones ({known}), got {name!r}: give another file")
    backbone, side = BACKBONES.get(name, (None, 224))
    measured = _measured(content, checkpoint.name)
    values = {"backbone": backbone, "patch": content["patch_size"], "glimpses": len(measured.flops), **_units(sets)}
    config = GFNetConfig.parse({**values, **settings}, owner="gfnet")
    task = _task(sets["fc"], side, checkpoint)
    with torch.device("meta"):  # names, shapes and costs need no values
        model = GFNet(config, task)
    tensors, left = _renamed(sets, model.state_dict(), config)
    published, notes = _published(measured, config.glimpses, model.paper_macs(1).value)
    crop = _CROPS.get(name, _CROP)
    notes.insert(
        0, f"images of {side} px, cropped to {crop:.1%} of the side (data.crop={crop}), as the authors' code for this backbone does"
    )
    if config.glimpses != len(measured.flops):
        notes.append(f"{config.glimpses} looks, as was set; the file has {len(measured.flops)}")
    if left:
        notes.append(f"{', '.join(sorted(left))} left out: of more than {config.glimpses} looks")
    return config, task, tensors, notes, published, {"crop": crop} if name in _CROPS else {}


def _empty(found: Any) -> bool:
    """Whether a tensor has no numbers, or another value is zero or empty."""
    return found.numel() == 0 if isinstance(found, Tensor) else not found


def _without_wrapper(tensors: Any) -> dict[str, Tensor]:
    """The tensors of a set, without the `module.` of DataParallel; empty if it is no set of tensors."""
    if not isinstance(tensors, Mapping) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        return {}
    return {str(name).removeprefix("module."): tensor for name, tensor in tensors.items()}


def _units(sets: Mapping[str, Mapping[str, Tensor]]) -> dict[str, int]:
    """The units of the two GRUs, where the file has them."""
    sources = {"hidden": ("fc", "rnn.weight_hh_l0"), "locator_hidden": ("policy", "gru.weight_hh_l0")}
    return {key: sets[part][name].shape[1] for key, (part, name) in sources.items() if name in sets[part] and sets[part][name].ndim == 2}


def _task(fc: Mapping[str, Tensor], side: int, checkpoint: Path) -> Task:
    """Classes are numbered, because the file does not name them."""
    head = fc.get("fc.weight", fc.get("fc_2.weight"))
    if head is None or head.ndim != 2:
        raise GlimpseZooError(
            f"expected a released checkpoint of GFNet with a tensor 'fc.weight' or 'fc_2.weight' in 'fc', but {checkpoint.name} has none: "
            "give one of the authors' 14 files"
        )
    classes = tuple(str(label) for label in range(head.shape[0]))
    return Task((side, side), 3, classes, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def _renamed(
    sets: Mapping[str, Mapping[str, Tensor]], wanted: Mapping[str, Tensor], config: GFNetConfig
) -> tuple[dict[str, Tensor], set[str]]:
    """The tensors under the names of `wanted`, and the layers for more looks that were left out.

    Raises `GlimpseZooError` unless all are there in the right shape, and no others.
    """
    result, used = {}, set()
    for name, like in wanted.items():
        module, _, rest = name.partition(".")
        part, source = _SETS[module], _THEIRS[module](rest, config)
        tensor = sets[part].get(source)
        if tensor is None and rest.endswith(_COUNTER):
            tensor = torch.zeros((), dtype=like.dtype)
        if tensor is None:
            raise GlimpseZooError(f"the checkpoint lacks {source!r} in {part!r}: is it complete, and of the backbone that it names?")
        if tensor.shape != like.shape:
            got = f"{tuple(tensor.shape)} in {part!r}"
            raise GlimpseZooError(f"expected the tensor {source!r} of shape {tuple(like.shape)}, got {got}: check backbone and patch")
        result[name] = tensor
        used.add((part, source))
    extra = [(part, name) for part, tensors in sets.items() for name in tensors if (part, name) not in used]
    left = {name.partition(".")[0] for part, name in extra if part == "fc" and re.fullmatch(r"fc_\d\.(weight|bias)", name)}
    extra = [name for part, name in extra if part != "fc" or name.partition(".")[0] not in left]
    if extra:
        raise GlimpseZooError(f"the checkpoint has {len(extra)} tensors that this model lacks, such as {extra[0]!r}: check the backbone")
    return result, left


def _of_encoder(name: str, config: GFNetConfig) -> str:
    name = name.removeprefix("net.")
    if config.backbone.startswith("regnet"):
        for ours, theirs in _REGNET:
            name = re.sub(ours, theirs, name)
    return name


def _of_classifiers(name: str, config: GFNetConfig) -> str:
    """`0.weight` -> `fc.weight`, or `fc_2.weight`: the layer for two looks."""
    place, _, rest = name.partition(".")
    return f"fc.{rest}" if config.classifier == "gru" else f"fc_{int(place) + 2}.{rest}"


def _of_locator(name: str, config: GFNetConfig) -> str:
    module, _, rest = name.partition(".")
    if module == "encoder":
        place, _, kind = rest.partition(".")  # theirs has no layer that flattens before the linear ones
        return f"state_encoder.{int(place) - (config.locator == 'linear')}.{kind}"
    return f"gru.{rest}_l0" if module == "cell" else f"{module}.0.{rest}"


_THEIRS: dict[str, Callable[[str, GFNetConfig], str]] = {
    "glance": _of_encoder,
    "focus": _of_encoder,
    "memory": lambda name, config: f"rnn.{name}_l0",
    "classifiers": _of_classifiers,
    "locator": _of_locator,
}


def _measured(content: Mapping[str, Any], name: str) -> _Measured:
    """What the file says of measurements. Raises `GlimpseZooError` for what cannot be one."""
    given = {key: content[key] for key in _Measured.model_fields if not _empty(content.get(key))}
    try:
        return _Measured.model_validate({key: _plain(value) for key, value in given.items()})
    except ValidationError as error:
        key = str(error.errors()[0]["loc"][0])
        wanted, got = _Measured.model_fields[key].description, reprlib.repr(_plain(given[key]))
        raise GlimpseZooError(f"expected {wanted} as {key!r} of {name}, got {got:.60}: give one of the authors' 14 files") from None


def _plain(value: Any, levels: int = 2) -> Any:
    """Lists of numbers in place of tensors, in a table at most; a tensor without values stays as it is."""
    if isinstance(value, Tensor):
        return value if value.is_meta else value.to_dense().tolist()
    return [_plain(each, levels - 1) for each in value] if levels and isinstance(value, list | tuple) else value


def _published(measured: _Measured, glimpses: int, glance: float) -> tuple[Published, list[str]]:
    """What the authors measured of this many glimpses, and a note for each thing that the file does not say in the known layout.

    glance: MACs of the first look as the paper counts them. They tell the unit of the file's, which it does not say.
    """
    notes, macs, looks = [], measured.flops, len(measured.flops)
    unit = min((1.0, 1e6, 1e9), key=lambda unit: abs(math.log(macs[0] * unit / glance)))
    if unit > 1:
        notes.append(f"the file's MACs were multiplied by {unit:g}, which brings them nearest to this model's")
    top1 = measured.anytime_classification
    if len(top1) != looks:
        notes.append(f"the file does not say the accuracy of {looks} looks ('anytime_classification')")
        top1 = ()
    exits = _exits(measured, unit)
    if not exits:
        notes.append("the file does not say thresholds with their results ('dynamic_threshold', 'budgeted_batch_classification')")
    elif glimpses != looks:
        notes.append(f"the authors' thresholds of early exits left out: they are of {looks} looks, not of {glimpses}")
        exits = ()
    shares = tuple(each / 100 for each in top1[:glimpses])
    return Published(top1=shares, macs=tuple(each * unit for each in macs[:glimpses]), exits=exits), notes


def _exits(measured: _Measured, unit: float) -> tuple[PublishedExits, ...]:
    """The early exits at each budget; empty if the file does not say them for its number of looks."""
    thresholds, (costs, top1) = measured.dynamic_threshold, measured.budgeted_batch_classification
    if not len(thresholds) == len(costs) == len(top1) or any(len(row) != len(measured.flops) for row in thresholds):
        return ()
    return tuple(
        PublishedExits(thresholds=row, macs=cost * unit, top1=each / 100) for row, cost, each in zip(thresholds, costs, top1, strict=True)
    )
