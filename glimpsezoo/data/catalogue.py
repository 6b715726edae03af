"""Every built-in data set, with its card. Imports nothing heavy.

The transforms are part of fingerprints: a changed word would change the identity of the data.
"""

from glimpsezoo.data.wordnet import IMAGENET, IMAGENET100_CMC, TINY_IMAGENET
from glimpsezoo.specs import DatasetSpec, Task

TEN_DIGITS = tuple(str(digit) for digit in range(10))
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of RGB in [0, 1], usual for ImageNet models

_CONFIG = "glimpsezoo.data.config"

DIGITS = DatasetSpec(
    name="digits",
    description="Handwritten digits of scikit-learn, 20 px, each at a random place of a 64 x 64 canvas (embedded: no network).",
    source="glimpsezoo.data.digits:open_digits",
    config=f"{_CONFIG}:PlacedSettings",
    task=Task(image_size=(64, 64), channels=1, classes=TEN_DIGITS, mean=(0.03,), std=(0.13,)),  # of the training split
    splits={"train": 1084, "calibration": 585, "test": 2980},
    license="CC BY 4.0 (UCI, Optical Recognition of Handwritten Digits; Alpaydin & Kaynak, 1998)",
    homepage="https://scikit-learn.org/stable/modules/generated/sklearn.datasets.load_digits.html",
    transform="8 x 8 values 0..16 enlarged bilinearly to 20 px, 8 bits, placed uniformly on 64 x 64 zeros; training places anew each epoch",
    calibration="a stratified tenth of the digits that are not test digits; each calibration and test digit has five places",
    embedded=True,
)


def _mnist(name: str, description: str, *, side: int, transform: str, config: str = "PlacedMnistSettings") -> DatasetSpec:
    """A set made from MNIST."""
    return DatasetSpec(
        name=name,
        description=description,
        source="glimpsezoo.data.mnist:open_mnist",
        config=f"{_CONFIG}:{config}",
        task=Task(image_size=(side, side), channels=1, classes=TEN_DIGITS),
        splits={"train": 55_000, "calibration": 5_000, "test": 10_000},
        license="CC BY-SA 3.0",
        homepage="https://huggingface.co/datasets/ylecun/mnist",
        transform=transform,
        calibration="the first 5,000 digits of MNIST's train split; the other 55,000 are for training",
    )


_ANEW = "training places anew each epoch"
_PYRAMID = f"{_ANEW}; with data.size=14|28|56 rescaled from 56 px by area"
MNIST_FAMILY = (
    _mnist("mnist", "Handwritten digits, 28 x 28.", side=28, config="CentredMnistSettings", transform="8-bit grey in [0, 1], as it is"),
    _mnist(
        "tmnist",
        "Translated MNIST of MGNet: each digit anywhere on 112 x 112.",
        side=112,
        transform=f"28 px digit placed uniformly on 112 x 112 zeros; {_ANEW}",
    ),
    _mnist(
        "gtmnist",
        "Gaussian-noise translated MNIST of MGNet: tmnist with noise of standard deviation 0.3.",
        side=112,
        config="NoisyMnistSettings",
        transform=f"28 px digit placed uniformly on 112 x 112 zeros, plus N(0, 0.3), clipped to [0, 1]; {_ANEW}, with new noise",
    ),
    _mnist(
        "plain-mnist",
        "Plain MNIST of the pyramid traversal: each digit anywhere on 56 x 56.",
        side=56,
        config="RescaledMnistSettings",
        transform=f"28 px digit placed uniformly on 56 x 56 zeros; {_PYRAMID}",
    ),
    _mnist(
        "textured-mnist",
        "Textured MNIST of the pyramid traversal: digits on 56 x 56 over grass (drawn, in place of the paper's photograph).",
        side=56,
        config="RescaledMnistSettings",
        transform=f"28 px digit placed uniformly on a random 56 x 56 cut of one drawn field of grass; {_PYRAMID}",
    ),
    _mnist(
        "noisy-mnist",
        "Noisy MNIST of the pyramid traversal: digits on 56 x 56 with a tenth of the pixels made white or black.",
        side=56,
        config="RescaledMnistSettings",
        transform=f"28 px digit placed uniformly on 56 x 56 zeros, 10 % salt and pepper, half each; {_PYRAMID}",
    ),
    _mnist(
        "translated-mnist",
        "Translated MNIST of RAM: each digit anywhere on 60 x 60 (data.size=100: on 100 x 100).",
        side=60,
        config="CanvasMnistSettings",
        transform=f"28 px digit placed uniformly on zeros, 60 x 60 or (data.size=100) 100 x 100; {_ANEW}",
    ),
    _mnist(
        "cluttered-mnist",
        "Cluttered translated MNIST of RAM: digits on 60 x 60 among 4 pieces of other digits (data.size=100: on 100 x 100 among 8).",
        side=60,
        config="CanvasMnistSettings",
        transform=(
            "28 px digit placed uniformly on zeros, plus pieces of 8 x 8 px of other digits of the split at random places, clipped to 1: "
            f"4 on 60 x 60, 8 on 100 x 100 (data.size=100); {_ANEW}, with new clutter"
        ),
    ),
)

JITTERED_MNIST = DatasetSpec(
    name="jittered-mnist",
    description="Jittered MNIST of Ranzato: each digit at ten (train) or three places of 48 x 48.",
    source="glimpsezoo.data.mnist:open_mnist",
    config=f"{_CONFIG}:PlacedMnistSettings",
    task=Task(image_size=(48, 48), channels=1, classes=TEN_DIGITS),
    splits={"train": 550_000, "calibration": 15_000, "test": 30_000},
    license="CC BY-SA 3.0",
    homepage="https://huggingface.co/datasets/ylecun/mnist",
    transform="28 px digit placed uniformly on 48 x 48 zeros; the ten placements of a training digit are the same in every epoch",
    calibration="the first 5,000 digits of MNIST's train split, at three places each; the other 55,000 are for training (paper: 60,000)",
)


CROP = 224 / 256  # of the shorter side, as usual for ImageNet


def _natural(
    name: str,
    description: str,
    *,
    side: int,
    classes: tuple[str, ...],
    splits: tuple[int, int, int],
    card: tuple[str, str, str, str],
    crop: float = CROP,
) -> DatasetSpec:
    """A set of natural images. splits: sizes of train, calibration and test. card: license, Hub repository, transform, calibration."""
    license, repository, transform, calibration = card
    return DatasetSpec(
        name=name,
        description=description,
        source="glimpsezoo.data.sources:open_catalogued",
        config=f"{_CONFIG}:CataloguedImageSettings",
        task=Task(image_size=(side, side), channels=3, classes=classes, mean=IMAGENET_MEAN, std=IMAGENET_STD),
        splits=dict(zip(("train", "calibration", "test"), splits, strict=True)),
        license=license,
        homepage=f"https://huggingface.co/datasets/{repository}",
        transform=transform,
        crop=crop,
        calibration=calibration,
    )


_VARIED = "training: random resized crop, flip, AutoAugment (data.crop_area, crop_aspect, interpolation, colours)"
_CENTRE = f"RGB, shorter side to 256 px (bilinear), centre 224 x 224; other sizes by data.size, in proportion; {_VARIED}"
_TERMS = "ImageNet's terms of access: non-commercial research and education"
NATURAL = (
    _natural(
        "tiny-imagenet",
        "Tiny ImageNet: 200 classes, 64 x 64.",
        side=64,
        classes=TINY_IMAGENET,
        splits=(95_000, 5_000, 10_000),
        card=(
            _TERMS,
            "zh-plus/tiny-imagenet",
            f"RGB, as it is (64 x 64; other sizes by data.size); {_VARIED}",
            "every twentieth image of each class of the train split: 25 each",
        ),
        crop=1.0,
    ),
    _natural(
        "imagenet100",
        "ImageNet100 of MGNet: the first 100 classes of ILSVRC-2012 (gated: needs an account that accepted the terms).",
        side=224,
        classes=IMAGENET[:100],
        splits=(124_395, 5_000, 5_000),
        card=(_TERMS, "ILSVRC/imagenet-1k", _CENTRE, "the first 5,000 rows of the train split (which the Hub keeps in random order)"),
    ),
    _natural(
        "imagenet100-cmc",
        "The other ImageNet100: the 100 classes of contrastive multiview coding.",
        side=224,
        classes=IMAGENET100_CMC,
        splits=(120_355, 6_334, 5_000),
        card=(_TERMS, "clane9/imagenet-100", _CENTRE, "every twentieth row of the train split"),
    ),
    _natural(
        "imagenet",
        "ImageNet (ILSVRC-2012): 1,000 classes (gated: needs an account that accepted the terms).",
        side=224,
        classes=IMAGENET,
        splits=(1_271_167, 10_000, 50_000),
        card=(_TERMS, "ILSVRC/imagenet-1k", _CENTRE, "the first 10,000 rows of the train split (which the Hub keeps in random order)"),
    ),
)

_READ = "RGB (grey by data.channels=1), upright by EXIF (data.orientation), transparency over black (data.background), 8 bits a channel"
_OPEN = f"{_READ}; resized and centre-cropped to data.size (224 px) in ImageNet's proportion of 256 : 224; {_VARIED}"
HUB = DatasetSpec(
    name="hf:",
    prefix=True,
    description="Any image-classification set of the Hub: hf:OWNER/NAME[@REVISION].",
    source="glimpsezoo.data.undeclared:open_hub",
    config=f"{_CONFIG}:HubSettings",
    license="the data set's own",
    homepage="https://huggingface.co/datasets?task_categories=image-classification",
    transform=_OPEN,
    crop=CROP,
    calibration="every tenth training row of each class; if there is only one split, every fifth row of each class is a test row",
)
FOLDER = DatasetSpec(
    name="folder:",
    prefix=True,
    description="Any folder of class folders: folder:PATH, with or without split folders (train, test, val, ...) above them.",
    source="glimpsezoo.data.undeclared:open_folder",
    find_task="glimpsezoo.data.undeclared:folder_task",
    config=f"{_CONFIG}:FolderSettings",
    license="the images' own",
    transform=_OPEN,
    crop=CROP,
    calibration="every tenth training image of each class; if there is no test folder, every fifth image of each class is a test image",
    local=True,
)

DATASETS: tuple[DatasetSpec, ...] = (DIGITS, *MNIST_FAMILY[:3], JITTERED_MNIST, *MNIST_FAMILY[3:], *NATURAL, HUB, FOLDER)
