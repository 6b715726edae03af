"""From the authors' released checkpoint (https://github.com/LeapLabTHU/AdaptiveNN) to this plugin's AdaptiveNN.

The file is a dictionary: tensors (`model`), the state of their optimiser, and the arguments of their training (`args`, an
`argparse.Namespace`), of which the sizes of images are read. All other sizes are those of the tensors.
"""

import argparse
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from glimpsezoo import GlimpseZooError, Published, PublishedExits, Task, read_checkpoint
from glimpsezoo_adaptivenn.config import AdaptiveNNConfig
from glimpsezoo_adaptivenn.model import AdaptiveNN

SIDE = 288  # px of the images that the authors train and test on
CROP = 0.925  # of the shorter side, which they test on
# A tensor of this model -> theirs. Numbers are of blocks and fixations. The first pattern that fits is taken.
RELEASED = [
    (r"(glance|focus)\.embed\.(.+)", r"\1_net.patch_embed.proj.\2"),
    (r"(glance|focus)\.position", r"\1_net.pos_embed"),
    (r"(glance|focus)\.(blocks\..+)", r"\1_net.\2"),
    (r"focus_classifier\.(.+)", r"focus_net.\1"),
    (r"classifiers\.(\d+)\.(norm|head)\.(.+)", r"policy_net_\2.\1.\3"),
    (r"reader\.norms\.(.+)", r"policy_net_recover_reuseNorm_list.\1"),
    (r"reader\.mix\.(.+)", r"policy_net_recover_reuseConvHead.\1"),
    (r"reader\.read_norms\.(.+)", r"policy_net_recover_reuseMLP_preLN_list.\1"),
    (r"reader\.mlp\.(.+)", r"policy_net_recover_reuseMLP.\1"),
    (r"writer\.norms\.(.+)", r"policy_net_recover_preLN_list.\1"),
    (r"writer\.mlp\.(.+)", r"policy_net_recover.\1"),
]
_MAP_NETS = {
    "locator": ("policy_net_patch", "policy_net_patch_norm_list"),
    "value": ("policy_net_patch_stateV", "policy_net_patch_norm_list_stateV"),
}
_OF_MAP_NET = [
    (r"mix\.(.+)", r"conv1.\1"),
    (r"narrow\.(.+)", r"conv2.\1"),
    (r"first\.(.+)", r"linear1.\1"),
    (r"second\.(.+)", r"linear2.\1"),
    (r"first_norms\.(\d+)\.(.+)", r"ln_list.\1.0.\2"),
    (r"second_norms\.(\d+)\.(.+)", r"ln_list.\1.1.\2"),
    (r"out\.(.+)", r"output_head.0.\1"),
]
_UNUSED = re.compile(r"glance_net\.(norm|head)\.(weight|bias)|offset_xy")  # by their code, or the same in every file
_ANCHORS = ("policy_net_patch.linear1.weight", "policy_net_recover.fc2.weight", "glance_net.pos_embed")
# Top-1 and MACs at two budgets of the paper. Their thresholds are not published.
PUBLISHED = Published(exits=tuple(PublishedExits(thresholds=(), top1=top1, macs=macs) for top1, macs in ((0.816, 2.86e9), (0.822, 4.85e9))))


def importer(
    checkpoint: Path, settings: Mapping[str, Any]
) -> tuple[AdaptiveNNConfig, Task, dict[str, Tensor], list[str], Published, dict[str, float]]:
    """Convert the released checkpoint, or a file of its tensors alone. `settings` (from `--set`) override what the file says.

    Returns the config, the task (classes from the tensors; normalisation as in the authors' code), the tensors under this model's names,
    notes, what the paper reports, and the authors' settings of the data. Raises `GlimpseZooError` for a file of another layout, and for
    tensors that are missing, extra or of another shape.
    """
    content = read_checkpoint(checkpoint, _ANCHORS, usual="model.", allowed=(argparse.Namespace,))
    theirs, notes = content.tensors, list(content.notes)
    args = content.beside.get("args")
    said = vars(args) if isinstance(args, argparse.Namespace) else {}
    values = _sizes(theirs, checkpoint)
    config = AdaptiveNNConfig.parse({**values, **settings}, owner="adaptivenn")
    for name in ("glance_input_size", "focus_patch_size"):
        if said.get(name, values["patch"]) != values["patch"]:
            raise GlimpseZooError(
                f"expected a checkpoint of AdaptiveNN with {name}={values['patch']}, as its tensors have it, got {said[name]} in 'args' of "
                f"{checkpoint.name}: give the authors' file"
            )
    side = said.get("input_size")
    if not isinstance(side, int):
        side = SIDE
        notes.append(f"the file does not say the side of its images ('args', 'input_size'): {SIDE} px were assumed")
    task = _task(theirs, side)
    with torch.device("meta"):  # names and shapes need no values
        wanted = AdaptiveNN(config, task).state_dict()
    tensors = _renamed(theirs, wanted, config, checkpoint)
    notes.append(f"images of {side} px; the authors resize by a bicubic filter, and crop 92.5 % (data.crop={CROP})")
    notes.append("the paper prints 81.6 % at 2.86 GMACs and 82.2 % at 4.85 GMACs, by exits whose thresholds it does not print")
    return config, task, tensors, notes, PUBLISHED, {"crop": CROP}


def _sizes(theirs: Mapping[str, Tensor], checkpoint: Path) -> dict[str, int]:
    """The settings that the shapes say. Raises `GlimpseZooError` if one does not."""
    try:
        token = theirs["glance_net.patch_embed.proj.weight"].shape[3]
        cells = theirs["glance_net.pos_embed"].shape[1]
        return {
            "glimpses": 1 + max(int(name.split(".")[1]) for name in theirs if name.startswith("policy_net_classifier_list.")),
            "patch": token * math.isqrt(cells),
            "token": token,
            "width": theirs["glance_net.pos_embed"].shape[2],
            "depth": 1 + max(int(name.split(".")[2]) for name in theirs if name.startswith("glance_net.blocks.")),
            "head_depth": 1 + max(int(name.split(".")[2]) for name in theirs if name.startswith("policy_net_classifier_list.0.")),
            "window": math.isqrt(theirs["policy_net_recover.fc2.weight"].shape[0]),
            "locator_channels": theirs["policy_net_patch.conv2.weight"].shape[0],
            "locator_hidden": theirs["policy_net_patch.linear1.weight"].shape[0],
        }
    except (KeyError, IndexError, ValueError) as error:
        raise GlimpseZooError(
            f"expected a checkpoint of AdaptiveNN whose tensors say its sizes, but those of {checkpoint.name} do not ({error}): "
            "give the authors' file"
        ) from None


def _task(theirs: Mapping[str, Tensor], side: int) -> Task:
    """Classes are numbered, because the file does not name them."""
    head = theirs.get("policy_net_head.0.weight", torch.empty(0))
    return Task((side, side), 3, tuple(map(str, range(len(head)))), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def _renamed(theirs: Mapping[str, Tensor], wanted: Mapping[str, Tensor], config: AdaptiveNNConfig, checkpoint: Path) -> dict[str, Tensor]:
    """The tensors under the names of `wanted`. Raises `GlimpseZooError` unless all are there in the right shape, and no others."""
    sources = {name: source_of(name, config) for name in wanted}
    for name, source in sources.items():
        if source not in theirs:
            raise GlimpseZooError(f"the checkpoint {checkpoint.name} lacks {source!r}: is it complete?")
        if theirs[source].shape != wanted[name].shape:
            expected, got = tuple(wanted[name].shape), tuple(theirs[source].shape)
            raise GlimpseZooError(
                f"expected the tensor {source!r} of shape {expected}, got {got} in {checkpoint.name}: give the authors' file"
            )
    known = set(sources.values())
    extra = [name for name in theirs if name not in known and not _UNUSED.fullmatch(name)]
    if extra:
        raise GlimpseZooError(
            f"the checkpoint {checkpoint.name} has {len(extra)} tensors that this model lacks, such as {extra[0]!r}: give the authors' file"
        )
    return {name: theirs[source] for name, source in sources.items()}


def source_of(name: str, config: AdaptiveNNConfig) -> str:
    """The authors' name of a tensor of this model.

    >>> source_of("classifiers.2.blocks.0.norm1.bias", AdaptiveNNConfig()), source_of("value.first_norms.3.bias", AdaptiveNNConfig())
    ('policy_net_classifier_list.1.0.norm1.bias', 'policy_net_patch_stateV.ln_list.3.0.bias')
    """
    module, _, rest = name.partition(".")
    if module in _MAP_NETS:
        net, norms = _MAP_NETS[module]
        return f"{norms}.{rest.removeprefix('norms.')}" if rest.startswith("norms.") else f"{net}.{_replaced(rest, _OF_MAP_NET)}"
    if found := re.fullmatch(r"classifiers\.(\d+)\.blocks\.(\d+)\.(.+)", name):
        step, block = int(found[1]), int(found[2])
        if step == 0:  # the last blocks of the glance net
            return f"glance_net.blocks.{config.depth - config.head_depth + block}.{found[3]}"
        return f"policy_net_classifier_list.{step - 1}.{block}.{found[3]}"
    return _replaced(name, RELEASED)


def _replaced(name: str, patterns: list[tuple[str, str]]) -> str:
    return next(re.sub(ours, theirs, name) for ours, theirs in patterns if re.fullmatch(ours, name))
