"""Registers AdaptiveNN, the importer of the authors' checkpoint, and the paper."""

from glimpsezoo import ImporterSpec, ModelSpec, PaperSpec, hookimpl

PAPER = "https://arxiv.org/abs/2509.15333"

# A crop of the digits' canvas (64 px) has room for a digit (20 px).
_SMALL = {"width": 48, "depth": 3, "head_depth": 1, "attention_heads": 4, "locator_channels": 16, "locator_hidden": 64, "window": 3}
DEFAULTS = {
    "digits": {"patch": 24, "token": 6, "glimpses": 2, "drop_path": 0.0, **_SMALL},
    "tiny-imagenet": {"patch": 32, "token": 4, "glimpses": 3, **_SMALL, "width": 192, "depth": 8, "head_depth": 3},
}


@hookimpl
def register_models() -> list[ModelSpec]:
    return [
        ModelSpec(
            name="adaptivenn",
            description="AdaptiveNN: a glance makes a state map, then fixations of a learned policy read from it and write to it; DeiT-S.",
            paper=PAPER,
            model="glimpsezoo_adaptivenn.model:AdaptiveNN",
            config="glimpsezoo_adaptivenn.config:AdaptiveNNConfig",
            training_step="glimpsezoo_adaptivenn.training:training_step",
            recipes="glimpsezoo_adaptivenn.recipes",
            defaults=DEFAULTS,
        )
    ]


@hookimpl
def register_importers() -> list[ImporterSpec]:
    return [
        ImporterSpec(
            name="adaptivenn",
            description="The checkpoint that the authors released (github.com/LeapLabTHU/AdaptiveNN): DeiT-S, ImageNet-1k.",
            importer="glimpsezoo_adaptivenn.importer:importer",
        )
    ]


@hookimpl
def register_papers() -> list[PaperSpec]:
    return [
        PaperSpec(
            name="adaptivenn-2025",
            description="Emulating human-like adaptive vision for efficient and flexible machine visual perception",
            authors="Wang, Yue, Yue et al., Nature Machine Intelligence 2025",
            url=PAPER,
            tables="glimpsezoo_adaptivenn",
        )
    ]
