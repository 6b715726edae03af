"""Every MGNet row of the papers' cost tables, recomputed from the models themselves."""

import pytest
import torch
from glimpsezoo_mgnet.backbones import create_backbone
from glimpsezoo_mgnet.cnn4 import CNN4
from glimpsezoo_mgnet.config import CNN4Config, MGNetConfig
from glimpsezoo_mgnet.costs import backbone_elements, backbone_macs, paper_table3_macs
from glimpsezoo_mgnet.model import MGNet

from glimpsezoo import Meter, Record, Task, count_macs, rollout


def task(size: int, channels: int, classes: int) -> Task:
    return Task((size, size), channels, tuple(str(i) for i in range(classes)))


IMAGENET100, TINY, TMNIST = task(224, 3, 100), task(64, 3, 200), task(112, 1, 10)


def model_of(data: Task, **settings: object) -> MGNet:
    with torch.device("meta"):  # counting only needs shapes
        return MGNet(MGNetConfig.parse(settings, owner="mgnet"), data).eval()


def giga(macs: float, digits: int = 6) -> str:
    return f"{macs / 1e9:.{digits}f}"


# backbone -> the recomputed and the printed GMACs of FF-Net, then of MGNet with 4 glimpses of 96 x 96 (tables 1 and 2)
TABLE_1 = {
    "resnet18": ("1.814675", 1.8146, "1.343234", 1.343),
    "resnet50": ("4.104174", 4.1042, "3.171903", 3.172),
    "resnext50_32x4d": ("4.245470", 4.2455, "3.275712", 3.276),
    "wide_resnet50_2": ("11.413011", 11.413, "8.541661", 8.542),
}


@pytest.mark.parametrize("backbone", TABLE_1)
def test_tables_1_and_2_by_backbone(backbone: str) -> None:
    ff_net, ff_printed, four, four_printed = TABLE_1[backbone]
    one_look = model_of(IMAGENET100, backbone=backbone, glimpses=1, downsample=1)
    assert giga(one_look.paper_macs(1).value) == ff_net
    assert one_look.paper_macs(1).value / 1e9 == pytest.approx(ff_printed, abs=1e-4)
    glimpses = model_of(IMAGENET100, backbone=backbone, glimpses=4, downsample="7/3")
    assert glimpses.paper_macs(4).convention == "paper"
    assert giga(glimpses.paper_macs(4).value) == four
    assert giga(glimpses.paper_macs(4).value, 3) == f"{four_printed:.3f}"


def test_table_2_by_glimpses() -> None:
    model = model_of(IMAGENET100, backbone="resnet18", glimpses=4, downsample=7 / 3)
    assert [giga(model.paper_macs(t).value) for t in (1, 2, 3)] == ["0.334217", "0.669495", "1.005834"]


@pytest.mark.parametrize(
    ("backbone", "glimpses", "recomputed"),
    [("resnet18", 1, "0.565737"), ("resnet18", 3, "0.430135"), ("resnet34", 1, "1.170536"), ("resnet34", 3, "0.883734")],
)
def test_table_3_without_max_pooling(backbone: str, glimpses: int, recomputed: str) -> None:
    side = 64 if glimpses == 1 else 32
    with torch.device("meta"):
        net, width = create_backbone(backbone, 3, (side, side), maxpool=False)
    elements = backbone_elements(net, 3, (side, side))
    macs = paper_table3_macs(backbone_macs(net, 3, (side, side)), width + 3, len(TINY.classes), glimpses, elements)
    assert giga(macs) == recomputed


def test_table_4() -> None:
    ff_net = model_of(TMNIST, backbone="cnn4", glimpses=1, downsample=1)
    assert ff_net.paper_macs(1).value == 67_957_707  # 67.950 in the table
    model = model_of(TMNIST, backbone="cnn4", glimpses=5, downsample=4)
    recomputed = [model.paper_macs(t).value for t in range(1, 6)]
    assert [f"{macs / 1e6:.6f}" for macs in recomputed] == ["3.471051", "7.010746", "10.619085", "14.296068", "18.041695"]
    assert [f"{macs / 1e6:.3f}" for macs in recomputed] == ["3.471", "7.011", "10.619", "14.296", "18.042"]


def test_the_small_cnn_by_itself() -> None:
    model = CNN4(CNN4Config(), TMNIST).eval()
    assert count_macs(lambda: rollout(model, torch.zeros(1, 1, 112, 112))).macs == 67_888_640
    assert backbone_macs(model.backbone, 1, (28, 28)) == 3_400_704


def test_counting_elements_leaves_the_backbone_as_it_was() -> None:
    net, _ = create_backbone("resnet18", 3, (32, 32))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    backbone_elements(net, 3, (32, 32))
    backbone_macs(net, 3, (32, 32))
    assert net.training
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())


@pytest.mark.parametrize("policy", ["learned", "random"])
def test_the_meter_charges_what_ran_and_the_cached_fusion_costs_what_it_should(policy: str) -> None:
    model = MGNet(MGNetConfig.parse({"backbone": "cnn4", "glimpses": 4, "downsample": 4, "policy": policy}, owner="mgnet"), TMNIST).eval()
    image = torch.rand(1, 1, 112, 112)
    macs = rollout(model, image, record=Record(meter=Meter(model))).macs
    assert macs is not None
    d = 131
    assert macs.sense[0].tolist() == [3_400_704] * 4
    assert macs.fuse[0].tolist() == [4 * d * d + 2 * t * d for t in (1, 2, 3, 4)]
    assert macs.locate[0].tolist() == ([3 * d] * 3 + [0] if policy == "learned" else [0] * 4)  # never after the last step
    assert macs.classify[0].tolist() == [0, 0, 0, 10 * d]
    whole = count_macs(lambda: rollout(model, image)).macs
    assert sum(int(part.sum()) for part in (macs.start, macs.sense, macs.fuse, macs.locate, macs.classify)) == whole
