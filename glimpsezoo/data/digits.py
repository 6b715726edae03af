"""`digits`: real handwriting that ships with this package, so that everything runs without a network.

digits.safetensors holds the 1,797 digits of scikit-learn's `load_digits`: the test set of "Optical Recognition of Handwritten Digits"
(Alpaydin and Kaynak, UCI, 1998; CC BY 4.0). Reading them from there would import scikit-learn and scipy, which takes as long as torch.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from glimpsezoo.data.base import DataInfo, ImageData
from glimpsezoo.data.config import PlacedSettings
from glimpsezoo.data.fingerprint import fingerprint
from glimpsezoo.data.placed import Glyphs, PlacedDigits, Placing
from glimpsezoo.data.splits import Division
from glimpsezoo.specs import DatasetSpec

SIDE = 20  # px of an enlarged digit
PLACES = {"train": 1, "calibration": 5, "test": 5}
DIVISION = Division(held_out=3, every=10, by_class=True)


def open_digits(spec: DatasetSpec, name: str, split: str, config: PlacedSettings, data_dir: Path | None) -> ImageData:
    """Open a split. `data_dir` is ignored. The spec describes the splits and the transform."""
    assert spec.task is not None
    stored = load_file(Path(__file__).with_name("digits.safetensors"))  # [1797, 8, 8], values 0..16, and labels
    labels = stored["labels"].long()
    chosen = torch.from_numpy(DIVISION.part(np.arange(len(labels)), split, labels.numpy()))
    glyphs = Glyphs(stored["pixels"][chosen], labels[chosen], chosen)
    info = DataInfo(
        name=name,
        source="digits.safetensors of glimpsezoo",
        revision=None,
        fingerprint=fingerprint(glyphs.digest(), split, spec.transform, config),
        split=split,
        transform=spec.transform,
    )
    # Digits are enlarged once, here. They are rounded to 8 bits, like stored images, so that every machine gives the same pixels.
    large = F.interpolate(glyphs.pixels[:, None] * (255 / 16), size=(SIDE, SIDE), mode="bilinear")[:, 0]  # [N, 20, 20]
    enlarged = Glyphs(large.round().to(torch.uint8), glyphs.labels, glyphs.ids)
    return PlacedDigits(info, spec.task, enlarged, Placing(canvas=spec.task.image_size[0], places=PLACES[split], seed=config.seed))
