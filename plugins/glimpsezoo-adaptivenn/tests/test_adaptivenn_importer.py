"""The released checkpoint: a file of its layout gives the outputs of a plain loop over its tensors at every look."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from glimpsezoo_adaptivenn.importer import importer
from glimpsezoo_adaptivenn.model import AdaptiveNN
from torch import Tensor

from glimpsezoo import GlimpseZooError, Record, rollout

# The released file with other sizes; it has 288, 112, 16, 4, 384, 12, 4, 5, 128, 1024 and 1000. Eight heads are fixed by the authors' code.
SIDE, PATCH, TOKEN, FIXATIONS, WIDTH, DEPTH, LAST, WINDOW, CHANNELS, HIDDEN, CLASSES = 40, 24, 8, 2, 16, 3, 1, 5, 6, 12, 5
CELLS = PATCH // TOKEN
HEADS = 8
MEAN = torch.tensor([0.485, 0.456, 0.406]).double().view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).double().view(3, 1, 1)


def norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def linear(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def mlp(name: str, outputs: int) -> dict[str, tuple[int, ...]]:
    return linear(f"{name}.fc1", WIDTH, 4 * WIDTH) | linear(f"{name}.fc2", 4 * WIDTH, outputs)


def block(name: str) -> dict[str, tuple[int, ...]]:
    attention = linear(f"{name}.attn.qkv", WIDTH, 3 * WIDTH) | linear(f"{name}.attn.proj", WIDTH, WIDTH)
    return norm(f"{name}.norm1", WIDTH) | attention | norm(f"{name}.norm2", WIDTH) | mlp(f"{name}.mlp", WIDTH)


def layout() -> dict[str, tuple[int, ...]]:
    """The names and shapes of the released tensors."""
    found: dict[str, tuple[int, ...]] = {"offset_xy": (1, 2, 1, 1, WINDOW**2)}
    for net in ("glance_net", "focus_net"):
        found |= {f"{net}.pos_embed": (1, CELLS**2, WIDTH)}
        found |= {f"{net}.patch_embed.proj.weight": (WIDTH, 3, TOKEN, TOKEN), f"{net}.patch_embed.proj.bias": (WIDTH,)}
        for k in range(DEPTH):
            found |= block(f"{net}.blocks.{k}")
        found |= norm(f"{net}.norm", WIDTH) | linear(f"{net}.head", WIDTH, CLASSES)
    for step in range(FIXATIONS + 1):
        found |= norm(f"policy_net_norm.{step}", WIDTH) | linear(f"policy_net_head.{step}", WIDTH, CLASSES)
    norms = ("recover_reuseNorm_list", "recover_reuseMLP_preLN_list", "recover_preLN_list", "patch_norm_list", "patch_norm_list_stateV")
    for step in range(FIXATIONS):
        for k in range(LAST):
            found |= block(f"policy_net_classifier_list.{step}.{k}")
        for name in norms:
            found |= norm(f"policy_net_{name}.{step}", WIDTH)
    for net, outputs in (("policy_net_patch", 2), ("policy_net_patch_stateV", 1)):
        for step in range(FIXATIONS):
            found |= norm(f"{net}.ln_list.{step}.0", HIDDEN) | norm(f"{net}.ln_list.{step}.1", HIDDEN // 2)
        found |= {f"{net}.conv1.weight": (WIDTH, 1, 3, 3), f"{net}.conv2.weight": (CHANNELS, WIDTH, 1, 1)}
        found |= {f"{net}.linear1.weight": (HIDDEN, CHANNELS * CELLS**2), f"{net}.linear2.weight": (HIDDEN // 2, HIDDEN)}
        found |= {f"{net}.output_head.0.weight": (outputs, HIDDEN // 2)}
    found |= {"policy_net_recover_reuseConvHead.weight": (WIDTH, 1, 7, 7)}
    return found | mlp("policy_net_recover_reuseMLP", WIDTH) | mlp("policy_net_recover", WINDOW**2)


class Released:
    """The published network: its file, and a run of it, one image after the other."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.tensors = {name: torch.randn(shape, generator=generator) * 0.3 for name, shape in layout().items()}
        for name, tensor in self.tensors.items():
            if ("norm" in name or "ln_list" in name or "LN" in name or "Norm" in name) and name.endswith(".weight"):
                tensor.add_(1)
        self.tensors["policy_net_patch.output_head.0.weight"].mul_(2)
        self.tensors["offset_xy"] = self.tensors["offset_xy"].round().long()

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name].double()

    def content(self) -> dict[str, Any]:
        """What the file holds, with numbers of the same kinds as the authors'."""
        args = argparse.Namespace(model="dynamic_deitS", input_size=SIDE, glance_input_size=PATCH, focus_patch_size=PATCH, seq_l=FIXATIONS)
        optimiser = {"state": {0: {"step": 3, "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-6, "group_name": "decay"}]}
        return {"model": dict(self.tensors), "optimizer": optimiser, "epoch": 299, "scaler": {"scale": 65536.0}, "args": args}

    def norm(self, x: Tensor, name: str) -> Tensor:
        x = x - x.mean(-1, keepdim=True)
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * self[f"{name}.weight"] + self[f"{name}.bias"]

    def linear(self, x: Tensor, name: str) -> Tensor:
        return x @ self[f"{name}.weight"].T + (self[f"{name}.bias"] if f"{name}.bias" in self.tensors else 0)

    def mlp(self, x: Tensor, name: str) -> Tensor:
        return self.linear(gelu(self.linear(x, f"{name}.fc1")), f"{name}.fc2")

    def block(self, x: Tensor, name: str) -> Tensor:
        """x: [tokens, width]; one head after the other."""
        query, key, value = self.linear(self.norm(x, f"{name}.norm1"), f"{name}.attn.qkv").chunk(3, 1)
        size, parts = WIDTH // HEADS, []
        for head in range(HEADS):
            its = slice(head * size, (head + 1) * size)
            parts.append((query[:, its] @ key[:, its].T / math.sqrt(size)).softmax(1) @ value[:, its])
        x = x + self.linear(torch.cat(parts, 1), f"{name}.attn.proj")
        return x + self.mlp(self.norm(x, f"{name}.norm2"), f"{name}.mlp")

    def tokens(self, x: Tensor, net: str) -> Tensor:
        """[3, PATCH, PATCH] -> [tokens, width], one square after the other."""
        weight = self[f"{net}.patch_embed.proj.weight"].flatten(1)
        squares = [x[:, TOKEN * i : TOKEN * (i + 1), TOKEN * j : TOKEN * (j + 1)].flatten() for i in range(CELLS) for j in range(CELLS)]
        return torch.stack(squares) @ weight.T + self[f"{net}.patch_embed.proj.bias"] + self[f"{net}.pos_embed"][0]

    def logits(self, map: Tensor, step: int) -> Tensor:
        names = [f"policy_net_classifier_list.{step - 1}.{k}" for k in range(LAST)]
        for name in names if step else [f"glance_net.blocks.{k}" for k in range(DEPTH - LAST, DEPTH)]:
            map = self.block(map, name)
        return self.linear(self.norm(map, f"policy_net_norm.{step}").mean(0), f"policy_net_head.{step}")

    def of_map(self, map: Tensor, net: str, norms: str, step: int) -> Tensor:
        """What the policy or the value network says of a state map."""
        grid = as_grid(self.norm(map, f"{norms}.{step}"))
        mixed = gelu(F.conv2d(grid, self[f"{net}.conv1.weight"], padding=1, groups=WIDTH)[0])  # [width, side, side]
        narrow = gelu(torch.einsum("oc,cij->oij", self[f"{net}.conv2.weight"][:, :, 0, 0], mixed))
        hidden = gelu(self.norm(self.linear(narrow.flatten(), f"{net}.linear1"), f"{net}.ln_list.{step}.0"))
        hidden = gelu(self.norm(self.linear(hidden, f"{net}.linear2"), f"{net}.ln_list.{step}.1"))
        return self.linear(hidden, f"{net}.output_head.0")

    def run(self, image: Tensor) -> tuple[list[Tensor], list[tuple[float, float]], list[float]]:
        """An image [3, SIDE, SIDE] in [0, 1] -> the logits of every look, the upper left corners of its crops in px, and the values."""
        x = (image.double() - MEAN) / STD
        centres = [(k + 0.5) * SIDE / PATCH - 0.5 for k in range(PATCH)]
        map = self.tokens(sampled(x, centres, centres, cubic, clamp=True), "glance_net")
        for k in range(DEPTH - LAST):
            map = self.block(map, f"glance_net.blocks.{k}")
        logits, corners, values = [self.logits(map, 0)], [], []
        for step in range(FIXATIONS):
            values.append(self.of_map(map, "policy_net_patch_stateV", "policy_net_patch_norm_list_stateV", step).item())
            action = torch.sigmoid(self.of_map(map, "policy_net_patch", "policy_net_patch_norm_list", step))
            top, left = (float(each) * (SIDE - PATCH) for each in action)
            corners.append((top, left))
            crop = sampled(x, [top + k for k in range(PATCH)], [left + k for k in range(PATCH)], cubic)
            rows, columns = ([(corner + (k + 0.5) * TOKEN) / SIDE for k in range(CELLS)] for corner in (top, left))  # in [0, 1]
            mixed = as_grid(self.norm(map, f"policy_net_recover_reuseNorm_list.{step}"))
            mixed = F.conv2d(mixed, self["policy_net_recover_reuseConvHead.weight"], padding=3, groups=WIDTH)[0]
            read = sampled(mixed, [CELLS * y - 0.5 for y in rows], [CELLS * each - 0.5 for each in columns], hat).flatten(1).T
            context = self.mlp(self.norm(read, f"policy_net_recover_reuseMLP_preLN_list.{step}"), "policy_net_recover_reuseMLP")
            local = self.tokens(crop, "focus_net") + context
            for k in range(DEPTH):
                local = self.block(local, f"focus_net.blocks.{k}")
            weights, written = self.mlp(self.norm(local, f"policy_net_recover_preLN_list.{step}"), "policy_net_recover"), map.clone()
            for token in range(CELLS**2):
                row = math.floor(rows[token // CELLS] * (CELLS - 1) + 0.5)
                column = math.floor(columns[token % CELLS] * (CELLS - 1) + 0.5)
                for place in range(WINDOW**2):
                    i, j = row + place // WINDOW - 2, column + place % WINDOW - 2
                    if 0 <= i < CELLS and 0 <= j < CELLS:
                        written[i * CELLS + j] += weights[token, place] * local[token]
            map = written
            logits.append(self.logits(map, step + 1))
        return logits, corners, values


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def as_grid(map: Tensor) -> Tensor:
    return map.T.reshape(1, WIDTH, CELLS, CELLS)


def cubic(distance: float) -> float:
    """Keys' kernel with a = -3/4, as in torch."""
    d, a = abs(distance), -0.75
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * (d**3 - 5 * d**2 + 8 * d - 4) if d < 2 else 0.0


def hat(distance: float) -> float:
    return max(0.0, 1 - abs(distance))


def sampled(x: Tensor, rows: list[float], columns: list[float], kernel: Callable[[float], float], clamp: bool = False) -> Tensor:
    """x: [C, h, w] at the crossings of rows and columns (in px, pixel centres at whole numbers). Outside are zeros, or the edge's."""

    def weights(places: list[float], size: int) -> Tensor:
        matrix = torch.zeros(len(places), size, dtype=torch.float64)
        for k, place in enumerate(places):
            for pixel in range(math.floor(place) - 1, math.floor(place) + 3):
                if clamp or 0 <= pixel < size:
                    matrix[k, min(max(pixel, 0), size - 1)] += kernel(place - pixel)
        return matrix

    return weights(rows, x.shape[1]) @ x @ weights(columns, x.shape[2]).T


@pytest.fixture(scope="module")
def released() -> Released:
    return Released()


def imported(content: dict[str, Any], folder: Path, **settings: Any) -> Any:
    torch.save(content, folder / "checkpoint-best.pth")
    return importer(folder / "checkpoint-best.pth", settings)


def test_an_imported_network_gives_the_outputs_of_a_plain_loop_at_every_look(released: Released, tmp_path: Path) -> None:
    config, task, tensors, notes, published, of_data = imported(released.content(), tmp_path)
    assert of_data == {"crop": 0.925}
    model = AdaptiveNN(config, task).eval()
    model.load_state_dict(tensors)
    model = model.double()
    images = torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)).double()
    images[1] = F.avg_pool2d(images[1], 9, 1, 4)
    images[2, :, :20] = 0
    with torch.no_grad():
        trace = rollout(model, images, record=Record(every_step=True, states=True))
        for row, image in enumerate(images):
            logits, corners, values = released.run(image)
            torch.testing.assert_close(trace.logits_by_step()[row], torch.stack(logits), atol=1e-4, rtol=1e-4)  # mean and std are float32
            for step, (top, left) in enumerate(corners):
                centre = torch.tensor([left + PATCH / 2, top + PATCH / 2]).double() / SIDE * 2 - 1
                torch.testing.assert_close(trace.looks[step + 1].decision.regions.centre[row], centre, atol=1e-5, rtol=0)
                assert model.value(trace.looks[step].state.map, step)[row].item() == pytest.approx(values[step], abs=1e-4)  # type: ignore[union-attr]
    steps, places = trace.logits_by_step(), torch.stack([look.decision.regions.centre for look in trace.looks[1:]])
    assert steps.diff(dim=1).abs().amax((0, 2)).min() > 1e-2  # the looks differ, so that equality means something
    assert (steps[0] - steps[1]).abs().amax(1).min() > 1e-2
    assert places.std(1).min() > 1e-2
    assert any(f"images of {SIDE} px" in note for note in notes)
    assert [(each.top1, each.macs) for each in published.exits] == [(0.816, 2.86e9), (0.822, 4.85e9)]


def test_the_file_says_its_sizes_and_its_tensors_alone_do_as_well(released: Released, tmp_path: Path) -> None:
    config, task, tensors, *_ = imported(released.content(), tmp_path)
    assert (config.glimpses, config.patch, config.token, config.width, config.window) == (FIXATIONS, PATCH, TOKEN, WIDTH, WINDOW)
    assert (config.depth, config.head_depth, config.attention_heads) == (DEPTH, LAST, HEADS)
    assert (task.image_size, len(task.classes)) == ((SIDE, SIDE), CLASSES)
    alone, other_task, other_tensors, notes, *_ = imported(released.content()["model"], tmp_path)
    assert alone == config
    assert other_task.image_size == (288, 288)
    assert any("288 px were assumed" in note for note in notes)
    assert all(torch.equal(tensors[name], other_tensors[name]) for name in tensors)


def _put(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["model"].__setitem__(name, value)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda content: content.pop("model"), "'policy_net_patch.linear1.weight'"),
        (lambda content: content["model"].pop("policy_net_head.1.bias"), "lacks 'policy_net_head.1.bias'"),
        (lambda content: content["model"].pop("glance_net.patch_embed.proj.weight"), "glance_net.patch_embed.proj.weight"),
        (_put("policy_net_patch.output_head.0.weight", torch.zeros(3, 6)), r"shape \(2, 6\), got \(3, 6\)"),
        (_put("policy_net_extra.weight", torch.zeros(3)), "1 tensors that this model lacks, such as 'policy_net_extra.weight'"),
        (lambda content: setattr(content["args"], "focus_patch_size", 32), "focus_patch_size=24, as its tensors have it, got 32"),
    ],
)
def test_files_of_another_layout_are_refused_in_one_line(
    change: Callable[[dict[str, Any]], Any], part: str, released: Released, tmp_path: Path
) -> None:
    content = released.content()
    change(content)
    with pytest.raises(GlimpseZooError, match=part) as caught:
        imported(content, tmp_path)
    assert "\n" not in str(caught.value)


class Innocent:
    """A class that is not allowed."""


def test_nothing_but_tensors_plain_values_and_the_namespace_is_unpickled(released: Released, tmp_path: Path) -> None:
    with pytest.raises(GlimpseZooError, match="Innocent"):
        imported({**released.content(), "args": Innocent()}, tmp_path)
    content = released.content()
    content["optimizer"]["param_groups"][0]["lr"] = np.float64(1e-6)  # as a schedule of NumPy's would leave it
    imported(content, tmp_path)
