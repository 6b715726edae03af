"""Appendix tables 1 to 5: every module's cost and parameters, and the cost of whole runs, as counted."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from glimpsezoo_pyramid.baselines import Baseline, Baseline1, Baseline2, Baseline3, BaselineImageNet1, BaselineImageNet2
from glimpsezoo_pyramid.config import BaselineConfig, PyramidConfig
from glimpsezoo_pyramid.model import Pyramid, PyramidImageNetM1, PyramidImageNetM2, PyramidM1, PyramidM2, PyramidM3
from torch import Tensor, nn

from glimpsezoo import Decision, GlimpseZooError, Meter, Noise, Record, Regions, Task, Trace, count_macs, rollout

TEN, THOUSAND = tuple("0123456789"), tuple(str(i) for i in range(1000))
# MACs without biases of features, location, aggregation, merging, classification; then all parameters, with biases.
TABLE: dict[type[Pyramid], tuple[int, int, int, int, int, int]] = {
    PyramidM3: (1_291_392, 5_184, 36_864, 8_192, 640, 106_771),
    PyramidM2: (959_616, 28_224, 36_864, 8_192, 640, 92_883),
    PyramidM1: (112_896, 28_224, 36_864, 8_192, 640, 74_707),
    PyramidImageNetM2: (48_955_392, 36_864, 589_824, 131_072, 256_000, 1_976_177),
    PyramidImageNetM1: (39_518_208, 147_456, 589_824, 131_072, 256_000, 1_496_689),
}
# Per layer: parameters with biases, and MACs, of the feature extraction module; then the parameters of the other modules.
LAYERS: dict[type[Pyramid], tuple[list[tuple[int, int]], tuple[int, int, int, int]]] = {
    PyramidM3: ([(320, 56_448), (18_496, 903_168), (36_928, 331_776)], (5_193, 36_928, 8_256, 650)),
    PyramidM2: ([(320, 56_448), (18_496, 903_168)], (28_233, 36_928, 8_256, 650)),
    PyramidM1: ([(640, 112_896)], (28_233, 36_928, 8_256, 650)),
    PyramidImageNetM2: (
        [(1_792, 1_769_472), (73_856, 18_874_368), (295_168, 18_874_368), (590_080, 9_437_184)],
        (36_873, 590_080, 131_328, 257_000),
    ),
    PyramidImageNetM1: ([(1_792, 1_769_472), (73_856, 18_874_368), (295_168, 18_874_368)], (147_465, 590_080, 131_328, 257_000)),
}
BASELINES: list[tuple[type[Baseline], dict[int, int]]] = [
    (Baseline3, {14: 1_300_224, 28: 5_174_400, 56: 21_592_704}),
    (Baseline2, {14: 968_448, 28: 3_847_296, 56: 15_362_688}),
    (Baseline1, {14: 121_728, 28: 460_416, 56: 1_815_168}),
    (BaselineImageNet2, {32: 49_342_464, 64: 196_208_640, 128: 783_673_344, 256: 3_133_532_160}),
    (BaselineImageNet1, {32: 39_905_280, 64: 158_459_904, 128: 632_678_400, 256: 2_529_552_384}),
]
kinds = pytest.mark.parametrize("kind", TABLE, ids=lambda kind: kind.__name__)


def task_for(kind: type[Pyramid] | type[Baseline], side: int) -> Task:
    return Task((side, side), 3, THOUSAND) if kind.architecture.base == 32 else Task((side, side), 1, TEN)


def model_of(kind: type[Pyramid], levels: int, **settings: Any) -> Pyramid:
    torch.manual_seed(0)
    return kind(PyramidConfig(**settings), task_for(kind, kind.architecture.base * 2 ** (levels - 1))).eval()


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@kinds
def test_modules_cost_what_the_tables_print(kind: type[Pyramid]) -> None:
    model, f, base = model_of(kind, 2), kind.architecture.width, kind.architecture.base
    maps = model.features(torch.rand(1, model.task.channels, base, base))
    counted = [
        count_macs(lambda: model.features(torch.rand(1, model.task.channels, base, base))),
        count_macs(lambda: model.location(maps)),
        count_macs(lambda: model.aggregation(torch.rand(1, f, 3, 3))),
        count_macs(lambda: model.merging(torch.rand(1, 2 * f))),
        count_macs(lambda: model.classification(torch.rand(1, f))),
    ]
    assert tuple(count.macs for count in counted) == TABLE[kind][:5]
    assert model.architecture.module_macs(model.task.channels, len(model.task.classes)) == TABLE[kind][:5]
    assert parameters(model) == TABLE[kind][5]


@kinds
def test_layers_have_the_parameters_and_costs_of_the_tables(kind: type[Pyramid]) -> None:
    model, base = model_of(kind, 2), kind.architecture.base
    features, others = LAYERS[kind]
    values, seen = torch.rand(1, model.task.channels, base, base), []
    for layer in model.features:
        if isinstance(layer, nn.Conv2d):
            seen.append((parameters(layer), count_macs(lambda layer=layer, values=values: layer(values)).macs))
        values = layer(values)
    assert seen == features
    assert tuple(map(parameters, (model.location, model.aggregation, model.merging, model.classification))) == others


def paper_formula(model: Pyramid, trace: Trace, image: int) -> int:
    """The README's formula: F sum n + L sum n_1..n_(K-1) + (A + G) p + C, from the regions of an image."""
    features, location, aggregation, merging, classification, _ = TABLE[type(model)]
    nodes = []  # (level, parent) in the order of the steps
    for look in trace.looks:
        if image in look.rows:
            regions = look.decision.regions
            mine = regions.image == look.rows.tolist().index(image)
            nodes += list(zip(regions.level[mine].tolist(), regions.parent[mine].tolist(), strict=True))
    asked = [node for node in nodes if node[0] < model.steps - 1]
    parents = {parent for _, parent in nodes if parent >= 0}
    return features * len(nodes) + location * len(asked) + (aggregation + merging) * len(parents) + classification


@pytest.mark.parametrize("kind", [PyramidM1, PyramidM2, PyramidM3], ids=lambda kind: kind.__name__)
def test_measured_macs_are_the_formula_image_by_image(kind: type[Pyramid]) -> None:
    model = model_of(kind, 3)
    with torch.no_grad():
        model.location.bias.fill_(-1.9)  # about one cell per node: some images choose none at a level, others many
    images, noise = torch.rand(60, 1, 56, 56), Noise.of(0, torch.arange(60))
    meter = Meter(model)
    trace = rollout(model, images, noise=noise, record=Record(meter=meter))
    assert trace.macs is not None
    measured = sum(trace.macs.stopped_at(model.steps).values(), torch.zeros(60))
    assert measured.tolist() == [paper_formula(model, trace, image) for image in range(60)]
    assert sorted(set(trace.last_step.tolist())) == [1, 2, 3]  # including images that chose nothing after one and two levels
    whole = count_macs(lambda: rollout(model, images, noise=noise))
    assert int(measured.sum()) == whole.macs
    assert meter.uncounted >= whole.uncounted - {"neg"}


def test_a_rule_that_reads_every_level_pays_for_every_merging() -> None:
    model = model_of(PyramidM3, 3)
    images, noise = torch.rand(3, 1, 56, 56), Noise.of(0, torch.arange(3))
    trace = rollout(model, images, noise=noise, record=Record(every_step=True, meter=Meter(model)))
    assert trace.macs is not None
    measured = sum(trace.macs.stopped_at(3, classify_every_step=True).values(), torch.zeros(3))
    assert int(measured.sum()) == count_macs(lambda: rollout(model, images, noise=noise, record=Record(every_step=True))).macs


@pytest.mark.parametrize(("kind", "macs"), [(PyramidM3, 4_183_334), (PyramidM2, 3_144_691), (PyramidM1, 435_187)])
def test_example_of_2_2_locations_at_28_px(kind: type[Pyramid], macs: int) -> None:
    """Eight images with two locations and two with three: 2.2 on average."""
    model, images = model_of(kind, 2), torch.rand(10, 1, 28, 28)
    trace = rollout(model, images, choose=attend([2] * 8 + [3] * 2), record=Record(meter=Meter(model)))
    assert trace.macs is not None
    assert trace.regions_by_step()[:, 1].float().mean().item() == pytest.approx(2.2)
    assert int(sum(trace.macs.stopped_at(2).values(), torch.zeros(10)).mean(dtype=torch.float64)) == macs


def attend(numbers: list[int]) -> Any:
    """Override the second decision: the first `numbers[i]` cells of the grid for image i."""

    def choose(images: Tensor, state: Any, decision: Decision) -> Decision:
        if state.step == 0:
            return decision
        image = torch.repeat_interleave(torch.arange(len(numbers)), torch.tensor(numbers))
        cell = torch.cat([torch.arange(n) for n in numbers])
        centre = torch.stack([cell % 3 - 1, cell // 3 - 1], 1) / 2
        one = torch.ones_like(image)
        regions = Regions(image=image, centre=centre, scale=one / 2, level=one, parent=one * 0, batch=len(numbers))
        return Decision.certain(regions)

    return choose


@pytest.mark.parametrize(("kind", "side", "macs"), [(kind, side, n) for kind, row in BASELINES for side, n in row.items()])
def test_baselines_cost_exactly(kind: type[Baseline], side: int, macs: int) -> None:
    model = kind(BaselineConfig(), task_for(kind, side)).eval()
    assert model.paper_macs(1).value == macs
    with torch.device("meta"):  # the largest takes 3 G MACs: count them without computing
        shapes_only = kind(BaselineConfig(), task_for(kind, side)).eval()
        images = torch.empty(1, model.task.channels, side, side)
    assert count_macs(lambda: shapes_only.classification(shapes_only.hidden(shapes_only.features(images).mean((2, 3))))).macs == macs
    if macs < 3e7:
        trace = rollout(model, torch.rand(2, model.task.channels, side, side), record=Record(meter=Meter(model)))
        assert trace.macs is not None
        assert sum(trace.macs.stopped_at(1).values(), torch.zeros(2)).tolist() == [macs, macs]


@pytest.mark.parametrize("kind", [row[0] for row in BASELINES], ids=lambda kind: kind.__name__)
def test_baselines_have_the_parameters_of_the_tables(kind: type[Baseline]) -> None:
    model = kind(BaselineConfig(), task_for(kind, kind.architecture.base))
    pyramid = next(k for k in TABLE if k.architecture == kind.architecture)
    f = kind.architecture.width
    assert parameters(model) == sum(n for n, _ in LAYERS[pyramid][0]) + 2 * (f * f + f) + LAYERS[pyramid][1][3]


def test_baselines_take_any_size_and_say_which_is_too_small() -> None:
    model = Baseline3(BaselineConfig(), Task((37, 51), 1, TEN)).eval()
    for height, width in ((37, 51), (6, 90)):
        assert rollout(model, torch.rand(2, 1, height, width)).logits.shape == (2, 10)
    with pytest.raises(GlimpseZooError, match=r"6 px or more.*got 5"):
        Baseline3(BaselineConfig(), Task((5, 80), 1, TEN))
    small = Baseline3(BaselineConfig(resolution=28), Task((5, 80), 1, TEN))
    assert small.paper_macs(1).value == 5_174_400


def test_paper_cost_of_the_first_level() -> None:
    model = model_of(PyramidM3, 3)
    paper = model.paper_macs(1)
    assert paper is not None
    trace = rollout(model, torch.rand(1, 1, 56, 56), steps=1, record=Record(meter=Meter(model)))
    assert trace.macs is not None
    assert paper.value == 1_291_392 + 640 == sum(trace.macs.stopped_at(1).values()).item()
    assert model.paper_macs(2) is None


def test_select_keeps_the_cost_key() -> None:
    """The key of `classify` stays with the image when its state is gathered."""
    model = model_of(PyramidM3, 3)
    trace = rollout(model, torch.rand(6, 1, 56, 56), record=Record(states=True))
    look = trace.looks[-1]
    assert look.state is not None
    index = torch.tensor([3, 0, 0, len(look.rows) - 1])
    work = model.work("classify", look.state, look.decision)
    assert len(set(work.tolist())) > 1
    assert model.work("classify", replace(look.state).select(index), look.decision.select(index)).tolist() == work[index].tolist()
