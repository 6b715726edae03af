"""The importer, on what the authors' package writes."""

import json
from pathlib import Path

import pytest
import torch

from glimpsezoo import GlimpseZooError, load, rollout
from glimpsezoo.workflows.importing import import_checkpoint

pytest.importorskip("canvit_pytorch")

from canvit_pytorch import CanViTForImageClassification, Viewpoint, sample_at_viewpoint
from glimpsezoo_canvit.config import CanViTConfig
from glimpsezoo_canvit.model import architecture

TINY = CanViTConfig(backbone="tiny", canvas_heads=2, canvas_head_dim=12, canvas_registers=3, registers=1, stride=1, projections="qkvo")
SETS = ("glimpse=32", "canvas=4", "glimpses=1", "policy=whole")


@pytest.fixture
def written(tmp_path: Path) -> Path:
    torch.manual_seed(4)
    CanViTForImageClassification(canvit_config=architecture(TINY), n_classes=3).save_pretrained(tmp_path / "theirs")
    return tmp_path / "theirs" / "model.safetensors"


def test_a_card_has_the_network_and_the_weights_of_the_file(written: Path, tmp_path: Path) -> None:
    card = import_checkpoint("canvit", written, tmp_path / "card", None, SETS)
    model = load(str(card.folder))
    network = ("backbone", "canvas_heads", "canvas_head_dim", "canvas_registers", "registers", "stride", "projections")
    assert [getattr(model.config, key) for key in network] == [getattr(TINY, key) for key in network]
    assert (model.task.classes, model.task.image_size) == (("0", "1", "2"), (512, 512))
    twin = CanViTForImageClassification.from_pretrained(str(written.parent)).eval()
    scene, view = torch.rand(2, 3, 64, 64), Viewpoint.full_scene(batch_size=2, device=None)
    with torch.no_grad():
        ours = rollout(model, scene).logits
        glimpse = sample_at_viewpoint(spatial=model.normalise(scene), viewpoint=view, glimpse_size_px=32)
        theirs, _ = twin(glimpse=glimpse, state=twin.init_state(batch_size=2, canvas_grid_size=4), viewpoint=view)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("config", [None, {"model_config": {}, "backbone_name": "vitb16"}, []], ids=["none", "of 0.1", "a list"])
def test_a_file_without_its_config_is_one_line(written: Path, tmp_path: Path, config: object) -> None:
    written.with_name("config.json").unlink()
    if config is not None:
        written.with_name("config.json").write_text(json.dumps(config))
    with pytest.raises(
        GlimpseZooError, match=r"expected a config\.json of canvit-pytorch from 0\.2 on beside model\.safetensors"
    ) as caught:
        import_checkpoint("canvit", written, tmp_path / "card", None, ())
    assert "\n" not in str(caught.value)
