"""Registers MGNet, the small CNN with which it is compared, and the importer of the authors' checkpoints."""

from glimpsezoo import ImporterSpec, ModelSpec, PaperSpec, hookimpl

PAPER = "https://arxiv.org/abs/2111.02018"
_DIGITS = {"backbone": "cnn4", "downsample": 4.0, "glimpses": 3}
_IMAGENET = {"backbone": "resnet18", "downsample": 7 / 3, "glimpses": 4, "alpha": 0.6}

# Section 4.1 (ImageNet100), section 4.2 (Tiny ImageNet) and appendix B (digits). The gradient scale follows the backbone.
MGNET_DEFAULTS = {
    "digits": _DIGITS,
    "mnist": {**_DIGITS, "downsample": 2.0},
    "tmnist": _DIGITS,
    "gtmnist": {**_DIGITS, "glimpses": 5},
    "tiny-imagenet": {"backbone": "resnet18", "maxpool": False, "downsample": 2.0, "glimpses": 3},
    "imagenet100": _IMAGENET,
    "imagenet100-cmc": _IMAGENET,
    "imagenet": _IMAGENET,
}


@hookimpl
def register_models() -> list[ModelSpec]:
    return [
        ModelSpec(
            name="mgnet",
            description="Multi-Glimpse Network: a few low-resolution glimpses, each placed by what the model has seen before.",
            paper=PAPER,
            model="glimpsezoo_mgnet.model:MGNet",
            config="glimpsezoo_mgnet.config:MGNetConfig",
            training_step="glimpsezoo_mgnet.training:mgnet_step",
            recipes="glimpsezoo_mgnet.recipes",
            defaults=MGNET_DEFAULTS,
        ),
        ModelSpec(
            name="cnn4",
            description="The small four-layer CNN of MGNet's appendix B, a feed-forward baseline on the whole image.",
            paper=PAPER,
            model="glimpsezoo_mgnet.cnn4:CNN4",
            config="glimpsezoo_mgnet.config:CNN4Config",
            training_step="glimpsezoo:cross_entropy_step",
            recipes="glimpsezoo_mgnet.recipes",
        ),
    ]


@hookimpl
def register_importers() -> list[ImporterSpec]:
    return [
        ImporterSpec(
            name="mgnet",
            description="PyTorch Lightning checkpoints of the authors' code (github.com/siahuat0727/MGNet).",
            importer="glimpsezoo_mgnet.importer:importer",
        )
    ]


@hookimpl
def register_papers() -> list[PaperSpec]:
    return [
        PaperSpec(
            name="mgnet-2021",
            description="Multi-Glimpse Network: A Robust and Efficient Classification Architecture based on Recurrent Downsampled "
            "Attention",
            authors="Tan, Dong & Ma, BMVC 2021",
            url=PAPER,
            tables="glimpsezoo_mgnet",
        )
    ]
