"""Registers the pyramid models and their baselines. Imports no torch."""

from glimpsezoo import ModelSpec, PaperSpec, hookimpl

PAPER = (
    "Image Classification Through Top-Down Image Pyramid Traversal (under review, ICLR 2020), https://openreview.net/forum?id=rkeH6AEYvr"
)
# Family in names, number, family in class names, description, table in the appendix.
ARCHITECTURES = (
    ("", 1, "", "1 convolution, base resolution 14", 3),
    ("", 2, "", "2 convolutions, base resolution 14", 2),
    ("", 3, "", "3 convolutions, base resolution 14", 1),
    ("imagenet-", 1, "ImageNet", "3 convolutions, base resolution 32", 5),
    ("imagenet-", 2, "ImageNet", "4 convolutions, base resolution 32", 4),
)


def _pyramid(family: str, number: int, class_family: str, what: str, table: int) -> ModelSpec:
    return ModelSpec(
        name=f"pyramid-{family}m{number}",
        description=f"Top-down pyramid traversal, hard attention over a 3 x 3 grid: {what} (table {table}).",
        model=f"glimpsezoo_pyramid.model:Pyramid{class_family}M{number}",
        config="glimpsezoo_pyramid.config:PyramidConfig",
        paper=PAPER,
        training_step="glimpsezoo_pyramid.training:training_step",
        recipes="glimpsezoo_pyramid.recipes",
    )


def _baseline(family: str, number: int, class_family: str, what: str, table: int) -> ModelSpec:
    return ModelSpec(
        name=f"pyramid-{family}bl{number}",
        description=f"Fully convolutional baseline of pyramid-{family}m{number} for any input size: {what} (table {table}).",
        model=f"glimpsezoo_pyramid.baselines:Baseline{class_family}{number}",
        config="glimpsezoo_pyramid.config:BaselineConfig",
        paper=PAPER,
        training_step="glimpsezoo_pyramid.baselines:training_step",
        recipes="glimpsezoo_pyramid.recipes",
    )


@hookimpl
def register_models() -> list[ModelSpec]:
    return [make(*row) for make in (_pyramid, _baseline) for row in ARCHITECTURES]


@hookimpl
def register_papers() -> list[PaperSpec]:
    return [
        PaperSpec(
            name="pyramid-traversal-2020",
            description="Image Classification Through Top-Down Image Pyramid Traversal",
            authors="under review at ICLR 2020",
            url="https://openreview.net/forum?id=rkeH6AEYvr",
            tables="glimpsezoo_pyramid",
        )
    ]
