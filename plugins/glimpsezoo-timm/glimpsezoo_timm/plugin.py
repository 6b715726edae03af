"""What this plugin registers: every model of timm, under one prefix."""

from glimpsezoo import ModelSpec, hookimpl


@hookimpl
def register_models() -> list[ModelSpec]:
    return [
        ModelSpec(
            name="timm:",
            description="Any timm model by name (timm:resnet18): one look at the whole image, the feed-forward baseline.",
            prefix=True,
            prefix_key="architecture",
            paper="https://github.com/huggingface/pytorch-image-models",
            model="glimpsezoo_timm.model:TimmModel",
            config="glimpsezoo_timm.config:TimmConfig",
            training_step="glimpsezoo_timm.model:training_step",
            recipes="glimpsezoo_timm.recipes",
        )
    ]
