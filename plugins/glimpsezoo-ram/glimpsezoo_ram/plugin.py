"""Registers RAM and DRAM, and the baselines with which RAM's paper compares it."""

from glimpsezoo import ImporterSpec, ModelSpec, PaperSpec, hookimpl

RAM_PAPER = "Recurrent Models of Visual Attention (Mnih et al., 2014), https://arxiv.org/abs/1406.6247"
DRAM_PAPER = "Multiple Object Recognition with Visual Attention (Ba, Mnih & Kavukcuoglu, 2015), https://arxiv.org/abs/1412.7755"
RECIPES = "glimpsezoo_ram.recipes"

# The paper's settings: section 4.1, tables 1 and 2.
_WIDE = {"glimpses": 8, "patch": 12, "scales": 3}
RAM_DEFAULTS = {
    "translated-mnist": _WIDE,
    "cluttered-mnist": _WIDE,
    "digits": {**_WIDE, "glimpses": 6},
}


@hookimpl
def register_models() -> list[ModelSpec]:
    return [
        ModelSpec(
            name="ram",
            description="Recurrent attention model: one small glimpse per step, at places drawn by a policy that is trained by reward.",
            paper=RAM_PAPER,
            model="glimpsezoo_ram.model:RAM",
            config="glimpsezoo_ram.config:RamConfig",
            training_step="glimpsezoo_ram.training:training_step",
            recipes=RECIPES,
            defaults=RAM_DEFAULTS,
        ),
        ModelSpec(
            name="dram",
            description="Deep recurrent attention model: a context network places glimpses that only the classifier's LSTM reads.",
            paper=DRAM_PAPER,
            model="glimpsezoo_ram.dram:DRAM",
            config="glimpsezoo_ram.config:DramConfig",
            training_step="glimpsezoo_ram.training:training_step",
            recipes=RECIPES,
        ),
        ModelSpec(
            name="ram-fc",
            description="RAM's fully connected baseline on the whole image: two hidden layers.",
            paper=RAM_PAPER,
            model="glimpsezoo_ram.baselines:FullyConnected",
            config="glimpsezoo_ram.config:FullyConnectedConfig",
            training_step="glimpsezoo:cross_entropy_step",
            recipes=RECIPES,
        ),
        ModelSpec(
            name="ram-conv",
            description="RAM's convolutional baseline on the whole image: a 10 x 10 convolution with stride 5, and a hidden layer.",
            paper=RAM_PAPER,
            model="glimpsezoo_ram.baselines:Convolutional",
            config="glimpsezoo_ram.config:ConvolutionalConfig",
            training_step="glimpsezoo:cross_entropy_step",
            recipes=RECIPES,
        ),
    ]


@hookimpl
def register_importers() -> list[ImporterSpec]:
    return [
        ImporterSpec(
            name="ram",
            description="The two checkpoints of a public re-implementation (github.com/kevinzakka/recurrent-visual-attention, 2018).",
            importer="glimpsezoo_ram.importer:importer",
        )
    ]


@hookimpl
def register_papers() -> list[PaperSpec]:
    return [
        PaperSpec(
            name="ram-2014",
            description="Recurrent Models of Visual Attention",
            authors="Mnih, Heess, Graves & Kavukcuoglu, NIPS 2014",
            url="https://arxiv.org/abs/1406.6247",
            tables="glimpsezoo_ram",
        ),
        PaperSpec(
            name="dram-2015",
            description="Multiple Object Recognition with Visual Attention",
            authors="Ba, Mnih & Kavukcuoglu, ICLR 2015",
            url="https://arxiv.org/abs/1412.7755",
            tables="glimpsezoo_ram",
        ),
    ]
