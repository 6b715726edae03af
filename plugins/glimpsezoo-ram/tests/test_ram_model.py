"""RAM and DRAM against plain loops: one image, one run, one glimpse at a time."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from glimpsezoo_ram.config import DramConfig, RamConfig
from glimpsezoo_ram.dram import DRAM, DramState
from glimpsezoo_ram.model import RAM
from torch import Tensor

from glimpsezoo import Confidence, GlimpseZooError, Meter, Noise, Record, Task, rollout

TASK = Task((20, 26), 2, ("a", "b", "c"), mean=(0.4, 0.6), std=(0.3, 0.2))
SIZE = (26, 20)  # (width, height)
NETWORKS = {"coarse": 12, "filters": 2, "width": 16}


def ram(**settings: Any) -> RAM:
    torch.manual_seed(0)
    return RAM(RamConfig(**{"glimpses": 3, "patch": 4, "scales": 2, **settings}), TASK).eval()


def dram(**settings: Any) -> DRAM:
    torch.manual_seed(0)
    return DRAM(DramConfig(**{"glimpses": 3, "patch": 10, **NETWORKS, **settings}), TASK).eval()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(5, 2, 20, 26, generator=torch.Generator().manual_seed(3))


def patch_at(image: Tensor, place: list[float], side: int) -> Tensor:
    """The paper's convention: from the pixel that holds the place, less half of the side; 0 outside."""
    view = torch.zeros(2, side, side)
    left, top = (int((along + 1) / 2 * size) - side // 2 for along, size in zip(place, SIZE, strict=True))
    for y in range(side):
        for x in range(side):
            if 0 <= top + y < SIZE[1] and 0 <= left + x < SIZE[0]:
                view[:, y, x] = image[:, top + y, left + x]
    return view


def retina_at(image: Tensor, place: list[float], patch: int, scales: int) -> Tensor:
    return torch.stack([F.avg_pool2d(patch_at(image, place, patch << k), 1 << k) for k in range(scales)])


def normalised(image: Tensor) -> Tensor:
    return (image - torch.tensor([0.4, 0.6])[:, None, None]) / torch.tensor([0.3, 0.2])[:, None, None]


def plain_ram(model: RAM, image: Tensor, noise: Noise, run: int) -> tuple[list[Tensor], list[list[float]]]:
    """The log-probabilities after every glimpse of one run of one image, and its places."""
    config, w = model.config, model.state_dict()

    def linear(name: str, x: Tensor) -> Tensor:
        return w[f"{name}.weight"] @ x + w[f"{name}.bias"]

    place = [2 * u - 1 for u in noise.uniform(0, 2 * run + 2)[0, -2:].tolist()]
    hidden, found, places = torch.zeros(256), [], []
    for step in range(1, config.glimpses + 1):
        places.append(place)
        patches = retina_at(normalised(image), place, config.patch, config.scales).flatten()
        what = linear("glimpse.what", linear("glimpse.pixels", patches).relu())
        where = linear("glimpse.where", linear("glimpse.place", torch.tensor(place)).relu())
        hidden = (linear("input", (what + where).relu()) + linear("recurrent", hidden)).relu()
        found.append(linear("classifier", hidden).log_softmax(0))
        mean = linear("locator.2", linear("locator.0", hidden).relu()) if config.locator_hidden else linear("locator.0", hidden)
        drawn = mean.tanh() + config.deviation * noise.normal(step, 2 * run + 2)[0, -2:]
        place = (drawn.tanh() if config.bound == "tanh" else drawn.clamp(-1, 1)).tolist()
    return found, places


@pytest.mark.parametrize("settings", [{}, {"evaluations": 3}, {"locator_hidden": 0, "bound": "tanh", "scales": 1, "patch": 5}], ids=str)
def test_ram_is_a_loop_over_glimpses(images: Tensor, settings: dict[str, Any]) -> None:
    model, runs = ram(**settings), settings.get("evaluations", 1)
    trace = rollout(model, images, noise=Noise.of(1, torch.arange(5)), record=Record(every_step=True))
    for i, image in enumerate(images):
        plain = [plain_ram(model, image, Noise.of(1, torch.tensor([i])), run) for run in range(runs)]
        for step, look in enumerate(trace.looks):
            assert look.logits is not None
            torch.testing.assert_close(look.logits[i], torch.stack([found[step] for found, _ in plain]).mean(0), rtol=1e-4, atol=1e-5)
            own = look.decision.regions.centre.unflatten(0, (5, runs))[i]  # [K, 2]
            places = torch.tensor([places[step] for _, places in plain])
            off = ((own - places) / 2 * torch.tensor(SIZE)).abs().amax()
            assert off <= 0.5 + 1e-4  # half a pixel, and only for even sides


@pytest.mark.parametrize(("patch", "scales"), [(5, 1), (4, 1), (4, 2)])
def test_a_region_lies_where_the_patches_were_taken_to_half_a_pixel(images: Tensor, patch: int, scales: int) -> None:
    """Images whose pixels hold their own places: the mean of a patch is where its centre is."""
    y, x = torch.meshgrid(torch.arange(20) + 0.5, torch.arange(26) + 0.5, indexing="ij")
    model = ram(patch=patch, scales=scales)
    held = torch.stack([x, y]) * torch.tensor([0.3, 0.2])[:, None, None] + torch.tensor([0.4, 0.6])[:, None, None]
    seen: list[Tensor] = []
    model.glimpse.pixels.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    trace = rollout(model, held.expand(40, -1, -1, -1))
    for look, patches in zip(trace.looks, seen, strict=True):
        widest = patches.unflatten(1, (scales, 2, patch, patch))[:, -1].mean((2, 3))  # [40, 2] in px
        centre = (look.decision.regions.centre + 1) / 2 * torch.tensor(SIZE)
        half = look.decision.regions.half * torch.tensor(SIZE) / 2
        inside = ((centre - half > 0.5) & (centre + half < torch.tensor(SIZE) - 0.5)).all(1)
        assert inside.any()
        assert (widest - centre)[inside].abs().max() <= 0.5 + 1e-3
        assert (look.decision.regions.half[0] * torch.tensor(SIZE)).tolist() == pytest.approx([patch << (scales - 1)] * 2)


def test_runs_are_averaged_and_paid_for_and_the_first_is_that_of_a_single_run(images: Tensor) -> None:
    one, four = ram(), ram(evaluations=4)
    traces = [rollout(model, images, record=Record(meter=Meter(model))) for model in (one, four)]
    costs = [int(sum(int(part[0]) for part in trace.macs.stopped_at(trace.last_step).values())) for trace in traces if trace.macs]
    assert costs[1] == 4 * costs[0]
    assert [model.paper_macs(3) for model in (one, four)] == [("linear layers", cost) for cost in costs]
    for a, b in zip(traces[0].looks, traces[1].looks, strict=True):
        torch.testing.assert_close(a.decision.regions.centre, b.decision.regions.centre[::4])
        assert b.decision.regions.counts().tolist() == [4] * 5
    assert four.train().runs == 1  # copies of the images take their place


def test_the_mode_starts_at_the_centre_and_needs_no_noise(images: Tensor) -> None:
    model = ram(decide="mode")
    assert not model.stochastic
    traces = [rollout(model, images, noise=Noise.of(seed, torch.arange(5))) for seed in (0, 1)]
    assert torch.equal(traces[0].logits, traces[1].logits)
    assert traces[0].looks[0].decision.regions.centre.abs().max() <= 1 / 20
    assert not torch.equal(rollout(ram(), images, noise=Noise.of(1, torch.arange(5))).logits, rollout(ram(), images).logits)


def plain_dram(model: DRAM, image: Tensor, noise: Noise) -> list[Tensor]:
    """The log-probabilities after every glimpse of one image."""
    config, w = model.config, model.state_dict()

    def lstm(name: str, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        gates = w[f"{name}.weight_ih"] @ x + w[f"{name}.bias_ih"] + w[f"{name}.weight_hh"] @ hidden + w[f"{name}.bias_hh"]
        enter, forget, candidate, leave = gates.chunk(4)
        cell = forget.sigmoid() * cell + enter.sigmoid() * candidate.tanh()
        return leave.sigmoid() * cell.tanh(), cell

    image, found = normalised(image), []
    zeros = torch.zeros(config.width)
    lower, upper = (zeros, zeros), (model.context(F.adaptive_avg_pool2d(image[None], config.coarse))[0], zeros)
    for step in range(config.glimpses):
        emitted = model.emission(upper[0]).tanh()
        drawn = emitted[:2] + config.deviation * 2.0 ** emitted[2] * noise.normal(step, 2)[0]
        place = drawn.clamp(-1, 1)
        patches = retina_at(image, place.tolist(), config.patch, config.scales).flatten(0, 1)
        glimpse = model.image(patches[None])[0] * model.place(place)
        lower = lstm("lower", glimpse, *lower)
        upper = lstm("upper", lower[0], *upper)
        found.append(model.classifier(lower[0]).log_softmax(0))
    return found


def test_dram_is_a_loop_over_glimpses(images: Tensor) -> None:
    model = dram()
    with torch.no_grad():
        trace = rollout(model, images, noise=Noise.of(1, torch.arange(5)), record=Record(every_step=True))
        for i, image in enumerate(images):
            for look, expected in zip(trace.looks, plain_dram(model, image, Noise.of(1, torch.tensor([i]))), strict=True):
                assert look.logits is not None
                torch.testing.assert_close(look.logits[i], expected, rtol=1e-4, atol=1e-5)


def test_the_classifier_of_dram_knows_the_context_only_by_its_places(images: Tensor) -> None:
    """With the places of another run, another context changes nothing; without them it does."""
    model, other = dram(), dram()
    torch.nn.init.normal_(other.context[-2].weight)
    places = [look.decision for look in rollout(model, images).looks]
    frozen = rollout(other, images, choose=lambda images, state, decision: places[state.step])
    assert torch.equal(frozen.logits, rollout(model, images).logits)
    assert not torch.equal(rollout(other, images).logits, rollout(model, images).logits)


@pytest.mark.parametrize("settings", [{}, {"evaluations": 2}, {"policy": "scan"}], ids=str)
def test_the_formula_of_dram_is_what_runs(images: Tensor, settings: dict[str, Any]) -> None:
    model = dram(**settings)
    for step in (1, 3):
        trace = rollout(model, images, steps=step, record=Record(meter=Meter(model)))
        assert trace.macs is not None
        measured = {phase: int(part[0]) for phase, part in trace.macs.stopped_at(trace.last_step).items()}
        paper = model.paper_macs(step)
        assert paper is not None
        assert paper.value == sum(measured.values())
    state, _ = model.start(images, Noise.of(0, torch.arange(5)))
    assert isinstance(state, DramState)
    assert bool(state.hidden[:, :, 1].any()) is not bool(settings.get("policy"))  # the context


def test_a_glimpse_of_the_paper_costs_about_a_quarter_of_a_million_macs() -> None:
    model = RAM(RamConfig(), Task((28, 28), 1, tuple("0123456789")))
    six, seven = model.paper_macs(6), model.paper_macs(7)
    assert six is not None
    assert seven is not None
    assert seven.value - six.value == 64 * 128 + 2 * 128 + 2 * 128 * 256 + 2 * 256**2 + 256 * 128 + 128 * 2
    assert 0.23e6 < seven.value - six.value < 0.24e6


def test_confident_images_leave_the_batch(images: Tensor) -> None:
    for model in (ram(evaluations=2), dram(evaluations=2)):
        whole = rollout(model, images, record=Record(every_step=True)).logits_by_step()
        confidence = whole.softmax(2).amax(2)[:, 0].sort().values
        trace = rollout(model, images, exit_rule=Confidence(threshold=confidence[2].item()))
        assert len(trace.last_step.unique()) > 1
        torch.testing.assert_close(trace.logits, whole[torch.arange(5), trace.last_step - 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ram(patch=21, scales=1), "expected patch to fit into images of 20 x 26 px, got 21"),
        (lambda: dram(patch=22), "expected patch to fit into images with a side of 20 px, got 22"),
        (lambda: dram(coarse=24), "expected coarse to fit into images with a side of 20 px, got 24"),
        (lambda: RamConfig.parse({"patch": "5", "scales": "2"}, owner="ram"), "even patch for more than one scale"),
        (lambda: DramConfig.parse({"patch": "11"}, owner="dram"), "even patch for more than one scale"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(make: Any, words: str) -> None:
    with pytest.raises(GlimpseZooError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("create", [ram, dram])
def test_other_policies_choose_every_place_the_first_included(create: Callable[..., RAM | DRAM], images: Tensor) -> None:
    centre = [look.decision.regions.centre for look in rollout(create(policy="centre", evaluations=2), images).looks]
    assert torch.stack(centre).abs().max() < 1e-6
    scanned = [look.decision.regions.centre[0].tolist() for look in rollout(create(policy="scan"), images).looks]
    assert scanned == [pytest.approx([x, y]) for x, y in ((-0.5, -0.5), (0.5, -0.5), (-0.5, 0.5))]
    drawn = [look.decision.regions.centre.view(5, 2, 2) for look in rollout(create(policy="random", evaluations=2), images).looks]
    assert torch.stack(drawn).flatten(0, 2).unique(dim=0).shape == (30, 2)  # every run of every image in every step
    blind = create(policy="random")
    assert (blind.sees, blind.stochastic, blind.surrogate) == ("none", True, None)
    for policy in ("whole-then-random", "coarse-to-fine"):
        with pytest.raises(GlimpseZooError, match=f"cannot follow the policy '{policy}'"):
            create(policy=policy)
