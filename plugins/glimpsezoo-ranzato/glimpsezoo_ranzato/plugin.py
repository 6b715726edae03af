"""Registers the glimpse model of the paper and its two baselines."""

from glimpsezoo import ModelSpec, PaperSpec, hookimpl

PAPER = "On Learning Where To Look (Ranzato, 2014), https://arxiv.org/abs/1405.5488"
RECIPES = "glimpsezoo_ranzato.recipes"

# mnist as in table 3: images of 28 px, one glimpse of one scale. digits: a quarter of the canvas's side, as for 48 px.
DEFAULTS = {
    "mnist": {"glimpses": 1, "low_size": 10, "patch": 10, "scales": 1},
    "digits": {"low_size": 16},
}


@hookimpl
def register_models() -> list[ModelSpec]:
    return [
        ModelSpec(
            name="ranzato",
            description="A low-resolution glimpse, then fully connected glimpse networks at learned places.",
            paper=PAPER,
            model="glimpsezoo_ranzato.model:Ranzato",
            config="glimpsezoo_ranzato.config:RanzatoConfig",
            training_step="glimpsezoo_ranzato.training:training_step",
            recipes=RECIPES,
            defaults=DEFAULTS,
        ),
        ModelSpec(
            name="ranzato-fc",
            description="The paper's fully connected baseline on the whole image or a down-sampled one.",
            paper=PAPER,
            model="glimpsezoo_ranzato.baselines:FullyConnected",
            config="glimpsezoo_ranzato.config:FullyConnectedConfig",
            training_step="glimpsezoo:cross_entropy_step",
            recipes=RECIPES,
        ),
        ModelSpec(
            name="ranzato-conv",
            description="The paper's convolutional baseline: two valid 5 x 5 convolutions with max-pooling.",
            paper=PAPER,
            model="glimpsezoo_ranzato.baselines:Convolutional",
            config="glimpsezoo_ranzato.config:ConvolutionalConfig",
            training_step="glimpsezoo:cross_entropy_step",
            recipes=RECIPES,
        ),
    ]


@hookimpl
def register_papers() -> list[PaperSpec]:
    return [
        PaperSpec(
            name="ranzato-2014",
            description="On Learning Where To Look",
            authors="Ranzato, 2014",
            url="https://arxiv.org/abs/1405.5488",
            tables="glimpsezoo_ranzato",
        )
    ]
