"""Costs: single operations against formulas by hand, and the meter's sums against counts of whole runs."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from toy_models import Counted, Peek, PeekState, Tree, TreeDecision, TreeState, batch_of_images, toy

import glimpsezoo.core.macs
from glimpsezoo.core.exits import Confidence
from glimpsezoo.core.macs import MacTable, Meter, count_macs
from glimpsezoo.core.noise import Noise
from glimpsezoo.core.protocol import PHASES, Phase
from glimpsezoo.core.regions import Decision, Regions
from glimpsezoo.core.rollout import Record, Trace, rollout
from glimpsezoo.errors import GlimpseZooError

IMAGES = batch_of_images(24)
NOISE = Noise.of(7, torch.arange(24))
RULES = {Peek: Confidence(0.75), Tree: Confidence(0.95)}


# Single operations


def test_a_linear_layer_costs_inputs_times_outputs() -> None:
    assert count_macs(lambda: nn.Linear(7, 5)(torch.zeros(3, 7))).macs == 3 * 7 * 5
    assert count_macs(lambda: nn.Linear(7, 5, bias=False)(torch.zeros(2, 4, 7))).macs == 2 * 4 * 7 * 5


def test_a_convolution_costs_its_kernel_at_every_place() -> None:
    x = torch.zeros(2, 4, 9, 9)
    assert count_macs(lambda: nn.Conv2d(4, 6, 3)(x)).macs == 2 * 6 * 7 * 7 * 4 * 3 * 3
    assert count_macs(lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1)(x)).macs == 2 * 6 * 5 * 5 * 4 * 3 * 3
    assert count_macs(lambda: nn.Conv2d(4, 6, 3, groups=2)(x)).macs == 2 * 6 * 7 * 7 * 2 * 3 * 3


def test_products_cost_their_three_sizes() -> None:
    assert count_macs(lambda: torch.zeros(3, 4) @ torch.zeros(4, 5)).macs == 3 * 4 * 5
    assert count_macs(lambda: torch.zeros(2, 3, 4) @ torch.zeros(2, 4, 5)).macs == 2 * 3 * 4 * 5
    assert count_macs(lambda: torch.einsum("bij,bjk->bik", torch.zeros(2, 3, 4), torch.zeros(2, 4, 5))).macs == 2 * 3 * 4 * 5


@pytest.mark.parametrize("causal", [False, True])
def test_scaled_dot_product_attention_costs_its_two_products(causal: bool) -> None:
    batch, heads, length, size = 2, 3, 8, 16
    q, k, v = torch.randn(3, batch, heads, length, size)
    count = count_macs(lambda: F.scaled_dot_product_attention(q, k, v, is_causal=causal))
    assert count.macs == 2 * batch * heads * length * length * size
    assert not any("attention" in name for name in count.uncounted)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("need_weights", [False, True])
def test_attention_is_counted_though_evaluation_fuses_it(training: bool, need_weights: bool) -> None:
    batch, length, size, heads = 3, 5, 8, 2
    attention = nn.MultiheadAttention(size, heads, batch_first=True).train(training)
    x = torch.randn(batch, length, size)
    projections = 4 * length * size * size  # queries, keys, values, output
    products = 2 * length * length * size  # all heads together
    count = count_macs(lambda: attention(x, x, x, need_weights=need_weights))
    assert count.macs == batch * (projections + products)


def test_an_encoder_layer_is_counted_though_evaluation_fuses_it() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    assert count_macs(lambda: layer(torch.randn(3, 5, 8))).macs == 3 * (4 * 5 * 8 * 8 + 2 * 5 * 5 * 8 + 2 * 5 * 8 * 16)


def test_the_fused_path_is_as_it_was_after_counting() -> None:
    for before in (True, False):
        torch.backends.mha.set_fastpath_enabled(before)
        try:
            count_macs(lambda: None)
            assert torch.backends.mha.get_fastpath_enabled() == before
            with pytest.raises(ZeroDivisionError):
                count_macs(lambda: 1 / 0)
            assert torch.backends.mha.get_fastpath_enabled() == before
        finally:
            torch.backends.mha.set_fastpath_enabled(True)


def test_counting_leaves_no_graph() -> None:
    layer = nn.Linear(3, 3)
    results = []
    count_macs(lambda: results.append(layer(torch.zeros(1, 3))))
    assert not results[0].requires_grad


@pytest.mark.parametrize(
    ("run", "name"),
    [
        (lambda x: F.grid_sample(x, torch.zeros(2, 4, 4, 2), align_corners=False), "grid_sampler_2d"),
        (lambda x: x.softmax(1), "_softmax"),
        (lambda x: F.layer_norm(x, [6, 6]), "native_layer_norm"),
        (lambda x: nn.BatchNorm2d(3).eval()(x), "batch_norm"),
        (lambda x: F.max_pool2d(x, 2), "max_pool2d"),
        (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), "upsample_bilinear2d"),
        (lambda x: x.relu_(), "relu"),
        (lambda x: x.add_(1), "add"),
        (lambda x: x.mean(1), "mean"),
        (lambda x: x.tanh(), "tanh"),
        (lambda x: torch.fft.fft(x), "fft"),
        (lambda x: x.index_add(0, torch.tensor([0]), x[:1]), "index_add"),
    ],
)
def test_arithmetic_without_a_formula_is_named(run, name: str) -> None:
    count = count_macs(lambda: run(torch.rand(2, 3, 6, 6)))
    assert count.macs == 0
    assert any(name in found for found in count.uncounted), count.uncounted


def test_moving_values_and_keeping_the_books_is_no_arithmetic() -> None:
    def run() -> None:
        x = torch.rand(2, 3, 6, 6)  # the draw is named
        mask = x > 0.5
        x.permute(0, 2, 3, 1).reshape(2, -1).contiguous().to(torch.float64)
        torch.cat([x, x]), torch.stack([x, x]), x.flatten(1).chunk(3, 1), x.unfold(2, 2, 2), x[:, :, None].expand(-1, -1, 2, -1, -1)
        F.pad(x, [1, 1, 1, 1]), F.pad(x, [1, 1, 1, 1], mode="reflect"), x.roll(1, 0), x.flip(3), x.repeat(2, 1, 1, 1)
        x[mask], x[torch.tensor([1, 0])], x.index_select(0, torch.tensor([1])), x.gather(0, torch.zeros(1, 3, 6, 6).long())
        torch.where(mask, x, 0), x.masked_fill(mask, 0), x.clone(), torch.zeros_like(x), torch.full((2,), 0.5), x.new_ones(3)
        y = x.clone()
        y[0] = 0
        y[mask] = 1
        y.copy_(x), x.sort(), x.topk(2), x.split(1), x.detach(), x.T if x.ndim == 2 else x.mT
        # bookkeeping: integers and truth values
        keys = torch.arange(5) * 3 + 1
        (keys ^ 7) >> 2, keys.bincount(), keys.cumsum(0), mask.any(), mask.sum(), ~mask, keys.unique(), x.argmax(1), mask.nonzero()
        Noise(keys).select(keys % 5)

    assert count_macs(run).uncounted == {"rand"}


# The meter: sums of its parts against counts of whole runs


@pytest.fixture(params=[Peek, Tree])
def model(request: pytest.FixtureRequest) -> Counted:
    return toy(request.param)


def metered(model: Counted, **options: object) -> Trace:
    with torch.no_grad():
        return rollout(model, IMAGES, noise=NOISE, record=Record(meter=Meter(model)), **options)


def table(trace: Trace) -> MacTable:
    assert trace.macs is not None
    return trace.macs


def whole_sum(trace: Trace) -> int:
    return int(trace.total_macs().sum())


def test_a_run_without_a_meter_has_no_total() -> None:
    with pytest.raises(GlimpseZooError, match=r"Record\(meter="):
        rollout(toy(Peek), IMAGES).total_macs()


@pytest.mark.parametrize("exits", [False, True], ids=["budget", "exits"])
def test_the_sum_is_one_count_of_the_whole_run(model: Counted, exits: bool) -> None:
    rule = RULES[type(model)] if exits else None
    trace = metered(model, exit_rule=rule)
    count = count_macs(lambda: rollout(model, IMAGES, noise=NOISE, exit_rule=rule))
    assert whole_sum(trace) == count.macs > 0
    assert (len(trace.last_step.unique()) > 1) == (exits or type(model) is Tree)


def test_the_cost_of_every_image_is_that_of_its_run_alone(model: Counted) -> None:
    rule = RULES[type(model)]
    macs = sum(table(metered(model, exit_rule=rule)).stopped_at(model.steps, classify_every_step=True).values())
    for i in range(0, len(IMAGES), 3):
        row = torch.tensor([i])
        alone = count_macs(lambda row=row: rollout(model, IMAGES[row], noise=NOISE.select(row), exit_rule=rule))
        assert macs[i] == alone.macs


def test_stopping_at_a_step_costs_a_run_with_that_budget(model: Counted) -> None:
    long = metered(model, exit_rule=None)
    with torch.no_grad():
        every = table(rollout(model, IMAGES, noise=NOISE, record=Record(every_step=True, meter=Meter(model))))
    for steps in range(1, model.steps + 1):
        count = count_macs(lambda steps=steps: rollout(model, IMAGES, noise=NOISE, steps=steps))
        assert sum(int(macs.sum()) for macs in every.stopped_at(steps).values()) == count.macs
    by_step = every.by_step()
    assert [by_step[:, t - 1].tolist() for t in range(1, model.steps + 1)] == [
        sum(every.stopped_at(t).values()).tolist() for t in range(1, model.steps + 1)
    ]
    # Only the classification that ran is charged. Merging is part of it, so the cost at a step is not a prefix sum.
    assert {name: macs.tolist() for name, macs in every.stopped_at(4).items()} == {
        name: macs.tolist() for name, macs in table(long).stopped_at(4).items()
    }


def test_a_rule_may_stop_every_image_at_a_step_of_its_own(model: Counted) -> None:
    """Exits decided afterwards, from a run of all steps, cost the same as exits decided in the run."""
    rule = RULES[type(model)]
    ran = metered(model, exit_rule=rule)
    with torch.no_grad():
        full = rollout(model, IMAGES, noise=NOISE, record=Record(every_step=True, meter=Meter(model)))
    confident = full.logits_by_step().softmax(-1).amax(-1) >= rule.threshold  # [B, T]
    step = torch.where(confident.any(1), confident.int().argmax(1) + 1, full.steps)
    later = table(full).stopped_at(step, classify_every_step=True)
    for phase, macs in table(ran).stopped_at(ran.steps, classify_every_step=True).items():
        assert later[phase].tolist() == macs.tolist(), phase


def test_phases_cost_their_layers() -> None:
    macs = table(metered(toy(Peek))).stopped_at(4)
    expected = {"start": 0, "sense": 4 * 6 * 36 * 9, "fuse": 4 * (216 * 24 + 24 * 24), "classify": 24 * 3, "locate": 3 * 24 * 2}
    assert set(macs) == set(PHASES)
    assert {phase: set(values.tolist()) for phase, values in macs.items()} == {phase: {value} for phase, value in expected.items()}


def test_a_tree_costs_the_nodes_it_has() -> None:
    trace = metered(toy(Tree))
    counts = trace.regions_by_step()  # [B, T]
    macs = table(trace).stopped_at(4)
    of_a_level = torch.tensor([16 * (8 + 4 * level) + (8 + 4 * level) * 8 for level in range(4)])
    assert macs["sense"].tolist() == (counts * of_a_level).sum(1).tolist()
    assert macs["locate"].tolist() == (counts[:, :3] * 8 * 4).sum(1).tolist()  # including the locate that found nothing
    inner = torch.zeros(len(IMAGES), dtype=torch.long)
    for i in range(len(IMAGES)):
        parents = [
            region
            for look in trace.looks
            for row, region in zip(look.decision.regions.image.tolist(), look.decision.regions.parent.tolist(), strict=True)
            if look.rows[row] == i and region >= 0
        ]
        inner[i] = len(set(parents))
    assert macs["classify"].tolist() == (inner * 16 * 8 + 8 * 3).tolist()
    assert len(set(macs["classify"].tolist())) > 3, "the trees of this test are meant to differ"


class Uneven(Peek):
    """Two regions per image and step, of levels drawn from its noise; level 1 costs double, and fusing costs more at every step."""

    def sense(self, images: Tensor, state: PeekState, regions: Regions) -> Tensor:
        features = super().sense(images, state, regions)
        deep = (regions.level == 1).nonzero().squeeze(1)
        return features.index_add(0, deep, super().sense(images, state, regions.keep(regions.level == 1)))

    def fuse(self, state: PeekState, decision: Decision, features: Tensor) -> PeekState:
        for _ in range(state.step):
            state = replace(state, memory=self.fuse_memory(state.memory))
        total = features.new_zeros(len(state.memory), features.shape[1]).index_add(0, decision.regions.image, features)
        return super().fuse(state, decision, total)

    def locate(self, state: PeekState) -> Decision:
        batch = len(state.memory)
        centre = super().locate(state).regions.centre.repeat_interleave(2, 0)
        level = (state.noise.uniform(state.step, 2) > 0.5).long().flatten()  # [2 B]
        image = torch.arange(batch).repeat_interleave(2)
        return Decision.certain(
            Regions(image=image, centre=centre, scale=torch.full((2 * batch,), 0.3), level=level, parent=0 * image - 1, batch=batch)
        )


@pytest.mark.parametrize("rule", [None, Confidence(0.75)], ids=["budget", "exits"])
def test_levels_within_a_step_and_steps_may_cost_what_they_like(rule: Confidence | None) -> None:
    model = toy(Uneven)
    trace = metered(model, exit_rule=rule)
    macs = trace.total_macs()
    assert macs.sum() == count_macs(lambda: rollout(model, IMAGES, noise=NOISE, exit_rule=rule)).macs
    for i in range(6):
        row = torch.tensor([i])
        assert macs[i] == count_macs(lambda row=row: rollout(model, IMAGES[row], noise=NOISE.select(row), exit_rule=rule)).macs
    assert len(set(macs.tolist())) > 3


@pytest.mark.parametrize("compact", [True, False])
@pytest.mark.parametrize("exits", [True, False])
def test_work_is_told_the_decision_of_its_own_step(compact: bool, exits: bool) -> None:
    class Watching(Tree):
        def work(self, phase: Phase, state: TreeState, decision: TreeDecision) -> Tensor:
            step = state.step + 1 if phase == "fuse" else state.step
            assert (decision.regions.level == step - 1).all()
            assert len(decision.regions) >= state.batch, "every image that looks has a region"
            return super().work(phase, state, decision)

    model, rule = toy(Watching), RULES[Tree] if exits else None
    trace = metered(model, compact=compact, exit_rule=rule)
    assert len(trace.last_step.unique()) > 2
    finished = trace.last_step.argmin()[None]  # finished by itself, and alone in the batch, so that no image is left
    rollout(model, IMAGES[finished], noise=NOISE.select(finished), exit_rule=rule, record=Record(meter=Meter(model)), compact=compact)


def test_what_an_image_did_not_go_through_costs_nothing(model: Counted) -> None:
    trace = metered(model, exit_rule=RULES[type(model)])
    steps = torch.arange(1, 5)
    later = steps > trace.last_step[:, None]
    for name in ("sense", "fuse", "classify", "locate"):
        assert not getattr(table(trace), name)[later].any()
    assert table(trace).last_step.tolist() == trace.last_step.tolist()


def test_uncounted_operations_of_all_phases_are_listed(model: Counted) -> None:
    meter = Meter(model)
    with torch.no_grad():
        rollout(model, IMAGES, record=Record(meter=meter))
    assert {"grid_sampler_2d", "tanh"} <= meter.uncounted
    assert {"sigmoid", "log"} <= meter.uncounted or type(model) is Peek


def test_a_second_batch_of_the_same_work_is_counted_without_running_anything(model: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    meter, calls = Meter(model), []

    def counted(run):
        calls.append(run)
        return count_macs(run)

    monkeypatch.setattr(glimpsezoo.core.macs, "count_macs", counted)
    with torch.no_grad():
        first = rollout(model, IMAGES, noise=NOISE, record=Record(meter=meter))
        assert 0 < len(calls) < 80
        calls.clear()
        model.asked.clear()
        second = rollout(model, IMAGES, noise=NOISE, record=Record(meter=meter))
        assert not calls
        assert model.asked["start"] == len(IMAGES)
        assert whole_sum(second) == whole_sum(first)
        rollout(model, batch_of_images(24).repeat(1, 1, 2, 2), noise=NOISE, record=Record(meter=meter))
        assert calls, "images of another size are other work"


def test_metering_changes_no_prediction(model: Counted) -> None:
    with torch.no_grad():
        plain = rollout(model, IMAGES, noise=NOISE)
    assert torch.equal(metered(model).logits, plain.logits)


class Expanding(nn.Module):
    """Passes a view of a parameter to another module, like the class tokens of pit and cait."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.inner = nn.Parameter(torch.ones(1, 3)), nn.Linear(3, 5)

    def forward(self) -> Tensor:
        return self.inner(self.token.expand(4, -1))


def test_views_of_parameters_that_modules_pass_on_are_counted() -> None:
    model = Expanding()
    assert count_macs(lambda: model()).macs == 4 * 3 * 5
