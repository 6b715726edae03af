"""Registers CanViT, the importer of its files, and the paper.

The model needs the authors' package, which needs Python 3.12. Without it, the spec says why.
"""

import sys
from importlib.util import find_spec

from glimpsezoo import ImporterSpec, ModelSpec, PaperSpec, hookimpl

PAPER = "https://arxiv.org/abs/2603.22570"

# A tiny network without meaning, so that the commands and the rules can be tried on the digits (64 px).
_TRIAL = {"backbone": "tiny", "glimpse": 32, "glimpses": 5, "canvas": 4, "canvas_heads": 2, "canvas_head_dim": 16, "canvas_registers": 2}
DEFAULTS = {"digits": _TRIAL}


def unavailable() -> str:
    """Why the model cannot be used here, and what to do; '' if it can."""
    if find_spec("canvit_pytorch"):
        return ""
    here = sys.version_info
    if here < (3, 12):
        return f"canvit needs canvit-pytorch, which needs Python 3.12 or later, got Python {here[0]}.{here[1]}: install under a later one"
    return "canvit needs canvit-pytorch, which is not installed: pip install canvit-pytorch"


@hookimpl
def register_models() -> list[ModelSpec]:
    return [
        ModelSpec(
            name="canvit",
            description="CanViT: a ViT that reads glimpses of any size into a canvas of the scene; the authors' package and weights.",
            paper=PAPER,
            model="glimpsezoo_canvit.model:CanViT",
            config="glimpsezoo_canvit.config:CanViTConfig",
            defaults=DEFAULTS,
            unavailable=unavailable(),
        )
    ]


@hookimpl
def register_importers() -> list[ImporterSpec]:
    return [
        ImporterSpec(
            name="canvit",
            description="Classifiers that canvit-pytorch wrote: model.safetensors with its config.json beside it.",
            importer="glimpsezoo_canvit.importer:importer",
        )
    ]


@hookimpl
def register_papers() -> list[PaperSpec]:
    return [
        PaperSpec(
            name="canvit-2026",
            description="CanViT: Toward Active-Vision Foundation Models",
            authors="Berreby, Du, Durand & Krishna, NeurIPS 2026",
            url=PAPER,
            tables="glimpsezoo_canvit",
        )
    ]
