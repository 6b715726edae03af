"""Registers every model of timm under one prefix."""

from glimpsezoo import ImporterSpec, ModelSpec, hookimpl


@hookimpl
def register_models() -> list[ModelSpec]:
    return [
        ModelSpec(
            name="timm:",
            description="Any timm model by name (timm:resnet18), a feed-forward baseline on the whole image.",
            prefix=True,
            prefix_key="architecture",
            paper="https://github.com/huggingface/pytorch-image-models",
            model="glimpsezoo_timm.model:TimmModel",
            config="glimpsezoo_timm.config:TimmConfig",
            training_step="glimpsezoo:cross_entropy_step",
            recipes="glimpsezoo_timm.recipes",
        )
    ]


@hookimpl
def register_importers() -> list[ImporterSpec]:
    return [
        ImporterSpec(
            name="timm:",
            prefix=True,
            description="Weights of any timm model (a state dict, as saved by timm's scripts and others).",
            importer="glimpsezoo_timm.importer:importer",
        )
    ]
