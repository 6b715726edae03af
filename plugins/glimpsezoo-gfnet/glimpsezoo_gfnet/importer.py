"""From the authors' released checkpoints (https://github.com/blackfeather-wang/GFNet-Pytorch) to this plugin's GFNet.

A file is a dictionary: four sets of tensors (`model_prime_state_dict`, `model_state_dict`, `fc`, `policy`), the name of the backbone, the
side of a patch, and what the authors measured.
"""

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
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


def importer(checkpoint: Path, settings: Mapping[str, Any]) -> tuple[GFNetConfig, Task, dict[str, Tensor], list[str], Published]:
    """Convert a released checkpoint. `settings` (from `--set`) override what the file says.

    Returns the config, the task (classes from the tensors; image size and normalisation as in the authors' code), the tensors under this
    model's names, notes, and what the authors measured. Raises `GlimpseZooError` for a file of another layout or another backbone, and
    for tensors that are missing, extra or of another shape.
    """
    content = read_checkpoint(checkpoint, _ANCHORS, usual="policy.").beside
    sets = {name: _without_wrapper(content.get(name)) for name in dict.fromkeys(_SETS.values())}
    lacking = [name for name, tensors in sets.items() if not tensors]
    lacking += [name for name, kind in _NEEDED.items() if not isinstance(content.get(name), kind) or not content[name]]
    if lacking:
        raise GlimpseZooError(
            f"expected a released checkpoint of GFNet with {lacking[0]!r}, got {checkpoint.name} without: give one of the authors' 14 files"
        )
    name = content["model_name"]
    if name not in BACKBONES and "backbone" not in settings:
        known = ", ".join(BACKBONES)
        raise GlimpseZooError(f"expected a checkpoint with one of the authors' backbones ({known}), got {name!r}: give another file")
    backbone, side = BACKBONES.get(name, (None, 224))
    values = {"backbone": backbone, "patch": content["patch_size"], "glimpses": len(content["flops"]), **_units(sets)}
    config = GFNetConfig.parse({**values, **settings}, owner="gfnet")
    task = _task(sets["fc"], side, checkpoint)
    with torch.device("meta"):  # names, shapes and costs need no values
        model = GFNet(config, task)
    tensors, left = _renamed(sets, model.state_dict(), config)
    published, notes = _published(content, config.glimpses, model.paper_macs(1).value)
    notes.insert(0, f"images of {side} px, as the authors' code for this backbone takes them")
    if left:
        notes.append(f"{', '.join(sorted(left))} left out: of more looks than the file's {config.glimpses}")
    return config, task, tensors, notes, published


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


def _published(content: Mapping[str, Any], looks: int, glance: float) -> tuple[Published, list[str]]:
    """What the authors measured, and a note for each thing that the file does not say in the known layout.

    glance: MACs of the first look as the paper counts them. They tell in which unit the file's own are, which it does not say.
    """
    notes, found = [], content["flops"]
    unit = min((1.0, 1e6, 1e9), key=lambda unit: abs(math.log(float(found[0]) * unit / glance)))
    if unit > 1:
        notes.append(f"the file's MACs were multiplied by {unit:g}, which brings them nearest to this model's")
    macs = tuple(float(macs) * unit for macs in found)
    top1 = content.get("anytime_classification", ())
    if len(top1) != looks:
        notes.append(f"the file does not say the accuracy of {looks} looks ('anytime_classification')")
        top1 = ()
    thresholds, curve = content.get("dynamic_threshold", ()), content.get("budgeted_batch_classification", ())
    exits = ()
    if len(curve) == 2 and len(thresholds) == len(curve[0]) == len(curve[1]) and all(len(each) == looks for each in thresholds):
        exits = tuple(
            PublishedExits(thresholds=tuple(map(float, each)), macs=float(cost) * unit, top1=float(accuracy) / 100)
            for each, cost, accuracy in zip(thresholds, *curve, strict=True)
        )
    else:
        notes.append("the file does not say thresholds with their results ('dynamic_threshold', 'budgeted_batch_classification')")
    return Published(top1=tuple(float(accuracy) / 100 for accuracy in top1), macs=macs, exits=exits), notes
