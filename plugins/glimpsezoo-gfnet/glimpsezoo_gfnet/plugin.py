"""Registers GFNet, the importer of the authors' checkpoints, and the paper."""

from glimpsezoo import ImporterSpec, ModelSpec, PaperSpec, hookimpl

PAPER = "https://arxiv.org/abs/2010.05300"
_IMAGENET = {"backbone": "resnet50", "patch": 96, "glimpses": 5}

# A crop of the digits' canvas (64 px) has room for a digit (20 px).
DEFAULTS = {
    "digits": {"backbone": "test_resnet", "patch": 24, "glimpses": 3, "hidden": 128, "locator_hidden": 128},
    "tiny-imagenet": {"backbone": "resnet18", "patch": 32, "glimpses": 3, "hidden": 256, "locator_hidden": 256},
    "imagenet100": _IMAGENET,
    "imagenet100-cmc": _IMAGENET,
    "imagenet": _IMAGENET,
}


@hookimpl
def register_models() -> list[ModelSpec]:
    return [
        ModelSpec(
            name="gfnet",
            description="Glance and Focus: a resized image, then crops where a policy trained by PPO looks; any timm backbone.",
            paper=PAPER,
            model="glimpsezoo_gfnet.model:GFNet",
            config="glimpsezoo_gfnet.config:GFNetConfig",
            training_step="glimpsezoo_gfnet.training:training_step",
            recipes="glimpsezoo_gfnet.recipes",
            defaults=DEFAULTS,
        )
    ]


@hookimpl
def register_importers() -> list[ImporterSpec]:
    return [
        ImporterSpec(
            name="gfnet",
            description="The 14 checkpoints that the authors released (github.com/blackfeather-wang/GFNet-Pytorch).",
            importer="glimpsezoo_gfnet.importer:importer",
        )
    ]


@hookimpl
def register_papers() -> list[PaperSpec]:
    return [
        PaperSpec(
            name="gfnet-2020",
            description="Glance and Focus: a Dynamic Approach to Reducing Spatial Redundancy in Image Classification",
            authors="Wang, Lv, Huang, Song, Yang & Huang, NeurIPS 2020",
            url=PAPER,
            tables="glimpsezoo_gfnet",
        )
    ]
