"""Exported graphs give what the model gives, without glimpsezoo: as ONNX under onnxruntime, as programs of torch.export, step by step."""

import ast
import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import BuiltinFunctionType, SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from command_line import TRACES, Answer, make_card, photo_card, photos, tree
from hub_server import HubServer
from torch import Tensor

import glimpsezoo as gz
from glimpsezoo.core.decompositions import decompositions, ndtri, repeat_interleave, repeated_places, stable_argsort
from glimpsezoo.core.symbolic import exporting, symbolic
from glimpsezoo.workflows import exporting as workflow
from glimpsezoo.workflows import onnx_files
from glimpsezoo.workflows.onnx_files import runner

pytestmark = pytest.mark.skipif(not TRACES, reason="torch is too old to export")

Ask = Callable[..., Answer]
SURE = gz.Confidence(0.9)
MNIST = gz.Task((28, 28), 1, tuple("0123456789"))
COLOUR = gz.Task((48, 64), 3, ("a", "b", "c"), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.2))


def real(count: int) -> Tensor:
    """Test images of the digits."""
    digits = gz.open_data("digits")
    return torch.stack([digits[index].image for index in range(count)])


def close(found: Any, wanted: gz.Trace) -> bool:
    """Whether logits agree to 1e-4, and so do predictions and exits."""
    logits, last_step = found
    same = torch.equal(last_step, wanted.last_step) and torch.equal(logits.argmax(1), wanted.logits.argmax(1))
    return same and bool((logits - wanted.logits).abs().max() < 1e-4)


@torch.no_grad()
def test_onnx_gives_the_logits_of_the_model_for_any_number_of_images(tmp_path: Path):
    import onnx

    model = gz.load("mgnet.digits")
    done = gz.export(model, tmp_path / "mgnet.onnx", steps=2)
    run = runner(done.path)
    for count in (1, 4, 33):
        assert close(run(real(count)), gz.rollout(model, real(count), steps=2)), count
    described = {each.key: each.value for each in onnx.load(done.path).metadata_props}
    assert json.loads(described["glimpsezoo.classes"]) == list("0123456789")
    assert described["glimpsezoo.card"] == "mgnet.digits"
    assert described["glimpsezoo.weights_sha256"] == model.card.weights.sha256
    assert json.loads(described["glimpsezoo.image_size"]) == [64, 64]
    assert done.difference < 1e-4
    assert str(Path.cwd()).encode() not in done.path.read_bytes()


@torch.no_grad()
def test_a_program_of_torch_export_has_exits_within_it(tmp_path: Path):
    model = gz.load("ranzato.digits")
    done = gz.export(model, tmp_path / "ranzato.pt2", exit_rule=SURE)
    extra = {"glimpsezoo.json": ""}
    program = torch.export.load(done.path, extra_files=extra).module()
    images = real(20)
    wanted = gz.rollout(model, images, exit_rule=SURE)
    assert wanted.last_step.unique().numel() > 1
    assert close(program(images), wanted)
    assert close(program(images[:1]), gz.rollout(model, images[:1], exit_rule=SURE))
    assert json.loads(extra["glimpsezoo.json"])["exit_rule"] == {"name": "confidence", "threshold": 0.9}


@torch.no_grad()
def test_a_folder_runs_step_by_step_until_all_images_are_done(tmp_path: Path):
    """With a rule that reads the logits of earlier steps, too."""
    model, rule, images = gz.load("mgnet.digits"), gz.Patience(1), real(20)
    done = gz.export(model, tmp_path / "mgnet", exit_rule=rule)
    run = runner(done.path)
    wanted = gz.rollout(model, images, exit_rule=rule)
    assert wanted.last_step.unique().numel() > 1
    assert close(run(images), wanted)
    for image in images[:3]:
        assert close(run(image[None]), gz.rollout(model, image[None], exit_rule=rule))
    assert [file.name for file in done.files] == [*(f"step-{n}.onnx" for n in (1, 2, 3)), "weights.bin", "glimpsezoo.json", "run.py"]
    weights = sum(parameter.nbytes for parameter in model.parameters())
    assert (tmp_path / "mgnet" / "weights.bin").stat().st_size < 1.1 * weights  # once, though three graphs use them


def test_an_export_that_is_stopped_leaves_the_earlier_one_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from onnx import ModelProto

    def steps(count: int, *, stopped: bool = False) -> Iterator[Any]:
        yield from [SimpleNamespace(program=None, inputs=[], outputs=[])] * count
        if stopped:
            raise KeyboardInterrupt

    monkeypatch.setattr(onnx_files, "converted", lambda *given: ModelProto())
    folder = tmp_path / "mgnet"
    onnx_files.write_steps(folder, steps(3), {"card": "old"})
    before = tree(folder)
    with pytest.raises(KeyboardInterrupt):
        onnx_files.write_steps(folder, steps(2, stopped=True), {"card": "new"})
    assert tree(folder) == before
    onnx_files.write_steps(folder, steps(2), {"card": "new"})
    assert sorted(tree(folder)) == ["glimpsezoo.json", "run.py", "step-1.onnx", "step-2.onnx", "weights.bin"]


def test_the_program_of_a_folder_needs_numpy_and_onnxruntime_only():
    source = Path(workflow.__file__).with_name("exported_runner.py").read_text(encoding="utf-8")
    imports = [each for each in ast.parse(source).body if isinstance(each, ast.Import | ast.ImportFrom)]
    names = [each.names[0].name if isinstance(each, ast.Import) else each.module for each in imports]
    assert set(names) == {"os", "functools", "pathlib", "typing", "numpy", "onnxruntime"}
    assert len(source.splitlines()) < 50


@torch.no_grad()
def test_draws_depend_on_the_ids_and_are_those_of_the_model(tmp_path: Path):
    model = gz.create_model("ram", task=MNIST, glimpses=2).eval()
    done = gz.export(model, tmp_path / "ram.onnx", seed=7)
    run, ids = runner(done.path), torch.tensor([5, -1, 1 << 40])
    images = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    assert close(run(images, ids), gz.rollout(model, images, noise=gz.Noise.of(7, ids)))
    assert not torch.equal(run(images, ids)[0], run(images, ids + 1)[0])


@torch.no_grad()
@pytest.mark.parametrize("rule", [None, SURE], ids=["all steps", "exits"])
def test_images_may_have_any_number_of_regions_and_none(tmp_path: Path, rule: gz.Confidence | None):
    """Images without a region leave the batch, which may become empty."""
    task = gz.Task((28, 28), 1, tuple("0123456789"))
    torch.manual_seed(1)
    model = gz.create_model("pyramid-m1", task=task, levels=2).eval()
    torch.nn.init.constant_(model.location.bias, -1.5)
    done = gz.export(model, tmp_path / "pyramid.pt2", exit_rule=rule)
    program = torch.export.load(done.path).module()
    for seed in range(4):
        images, ids = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(seed)), torch.arange(3) + 10 * seed
        assert close(program(images, ids), gz.rollout(model, images, noise=gz.Noise.of(0, ids), exit_rule=rule))


GRID = {"canvas": 4, "canvas_heads": 2, "canvas_head_dim": 12, "canvas_registers": 3, "registers": 2}
SMALL = {"patch": 16, "glimpses": 2}
EVERY = {
    "mgnet": {"backbone": "resnet18", "glimpses": 2},
    "cnn4": {}, "ranzato": {"hidden": 8}, "ranzato-fc": {}, "ranzato-conv": {}, "ram": {"glimpses": 2}, "ram-fc": {}, "ram-conv": {},
    "dram": {"glimpses": 2}, "pyramid-m1": {}, "pyramid-m3": {}, "pyramid-bl2": {}, "timm:resnet18": {"image_size": 64},
    "timm:vit_tiny_patch16_224": {"image_size": 48},
    "gfnet": {**SMALL, "backbone": "test_efficientnet", "hidden": 12, "locator_hidden": 10},
    "adaptivenn": {**SMALL, "token": 4, "width": 16, "depth": 3, "head_depth": 1, "attention_heads": 2, "locator_hidden": 8},
    "canvit": {"backbone": "tiny", "glimpse": 32, "glimpses": 3, **GRID},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "pt2", "steps"])
@pytest.mark.parametrize("name", EVERY)
def test_every_model_can_be_exported(tmp_path: Path, name: str, kind: str):
    task = MNIST if name.startswith(("mgnet", "cnn4", "r", "dram", "pyramid")) else COLOUR
    try:
        model = gz.create_model(name, task=task, **EVERY[name]).eval()
    except gz.GlimpseZooError as error:
        pytest.skip(str(error))
    path = tmp_path / ("steps" if kind == "steps" else f"model.{kind}")
    rule = SURE if kind == "steps" else None
    done = gz.export(model, path, exit_rule=rule)
    assert done.difference < 1e-4
    assert done.described["classes"] == list(task.classes)


# Nothing stays behind


def test_a_model_is_as_before_once_it_is_exported(tmp_path: Path):
    model = gz.load("cnn4.digits")
    before = gz.rollout(model, real(2)).logits
    gz.export(model, tmp_path / "cnn4.pt2")
    assert isinstance(len, BuiltinFunctionType)
    assert not exporting()
    assert torch.equal(gz.rollout(model, real(2)).logits, before)


def test_sizes_are_symbols_only_within():
    class Count(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            assert exporting()
            return torch.arange(len(x)) + len([1, 2])

    with symbolic():
        program = torch.export.export(Count(), (torch.zeros(3),), dynamic_shapes=({0: torch.export.Dim("n", min=1)},))
    assert program.module()(torch.zeros(5)).tolist() == [2, 3, 4, 5, 6]
    assert not exporting()


# The operations that ONNX lacks


def test_decompositions_equal_what_torch_computes():
    tiny = 10 ** -torch.linspace(0.1, 300, 2000, dtype=torch.float64)
    p = torch.cat([tiny, 1 - tiny, torch.tensor([0.0, 1.0, 0.5, 0.13533528323661269189], dtype=torch.float64)])
    assert torch.equal(ndtri(p).float(), torch.special.ndtri(p).float())
    x, repeats = torch.rand(6, 2), torch.tensor([2, 0, 1, 0, 3, 0])
    assert torch.equal(repeat_interleave(x, repeats, 0), x.repeat_interleave(repeats, 0))
    assert repeated_places(repeats[:0]).tolist() == []
    assert stable_argsort(torch.arange(9), stable=True).tolist() == list(range(9))
    attention = decompositions()[torch.ops.aten.scaled_dot_product_attention.default]
    query, key = torch.rand(2, 1, 8), torch.rand(2, 3, 8)
    torch.testing.assert_close(attention(query, key, key), F.scaled_dot_product_attention(query, key, key))


# The command, and its errors


def test_the_command_says_what_it_wrote(say: Ask, here: Path, tmp_path: Path):
    make_card(here / "zoo_cards" / "cnn4.digits")
    answer = say("export", "cnn4.digits", "-o", str(tmp_path / "cnn4.pt2"), "--json")
    assert answer.status == 0
    assert answer.json["classes"] == list("0123456789")
    assert answer.json["difference"] < 1e-4
    again = say("export", "cnn4.digits", "-o", str(tmp_path / "cnn4.pt2"))
    assert again.status == 2
    assert "--force" in again.err


def test_the_preprocessing_that_is_asked_for_is_described(say: Ask, here: Path, tmp_path: Path):
    photos(here / "photos", per_class=5)
    card = photo_card(here / "zoo_cards" / "card").folder
    asked = ("--set", "data.crop=0.5", "--set", "data.background=white")
    said = [say("export", card, "-o", str(tmp_path / f"{len(sets)}.pt2"), *sets, "--json").json["preprocessing"] for sets in ((), asked)]
    assert "over black" in said[0]
    assert "87.5%" in said[0]
    assert "over white" in said[1]
    assert "50.0%" in said[1]


@pytest.mark.parametrize(
    ("words", "facts"),
    [
        (("-o", "model.tflite"), ("model.tflite", ".onnx", ".pt2", "slash")),
        (("-o", "zoo_cards/a"), ("'a'", "which is a file", "another name")),
        (("-o", "zoo_cards/a", "--force"), ("'a'", "which is a file", "another name")),
        (("-o", "m.onnx", "--steps", "9"), ("1 to 3", "9")),
        (("-o", "m.onnx", "--set", "anytime.rule=margin"), ("anytime.rule alone", "anytime.threshold")),
        (("-o", "m.onnx", "--set", "anytime.macs=3"), ("anytime.macs",)),
    ],
)
def test_what_cannot_be_is_one_line(say: Ask, here: Path, words: tuple[str, ...], facts: tuple[str, ...]):
    (here / "zoo_cards").mkdir(exist_ok=True)
    (here / "zoo_cards" / "a").touch()
    answer = say("export", "mgnet", "--checkpoint", "none", *words)
    assert answer.status == 2
    assert answer.err.count("\n") == 1
    assert all(fact in answer.err for fact in facts), answer.err


def test_a_full_disk_is_no_fault_of_the_model(say: Ask, here: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*given: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "cnn4.pt2")

    monkeypatch.setattr(workflow, "_write_program", full)
    answer = say("export", "cnn4", "--checkpoint", "none", "-o", "cnn4.pt2")
    assert answer.status == 2
    assert "No space left" in answer.err
    assert "update torch" not in answer.err


def test_without_the_packages_the_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(workflow, "find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(gz.GlimpseZooError, match=r"no onnxscript.*pip install onnx"):
        gz.export(gz.load("cnn4.digits"), tmp_path / "cnn4.onnx")


def test_a_model_whose_steps_depend_on_values_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model = gz.load("mgnet.digits")
    sense = type(model).sense

    def looks(self: Any, images: Tensor, state: Any, regions: gz.Regions) -> Any:
        return sense(self, images if images.mean() > 0.5 else 1 - images, state, regions)

    monkeypatch.setattr(type(model), "sense", looks)
    with pytest.raises(gz.GlimpseZooError) as found:
        gz.export(model, tmp_path / "mgnet.pt2")
    assert "\n" not in str(found.value)
    assert all(fact in str(found.value) for fact in ("mgnet.digits", "data-dependent", "gz.inference"))


@pytest.mark.slow
def test_a_graph_that_runs_tells_nobody(hub: HubServer, tmp_path: Path):
    """onnxruntime sends its telemetry some seconds after its first session."""
    gz.export(gz.load("mgnet.digits"), tmp_path / "one.onnx", steps=2)
    gz.export(gz.load("mgnet.digits"), tmp_path / "folder", exit_rule=SURE)
    ours = "import sys, time; from pathlib import Path; from glimpsezoo.workflows.onnx_files import runner; runner(Path(sys.argv[1]))"
    theirs = "import sys, time; sys.path.insert(0, sys.argv[1]); import run; run.session(1)"
    environment = os.environ | hub.environment(tmp_path)
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    for program, place in ((ours, "one.onnx"), (theirs, "folder")):
        subprocess.run([sys.executable, "-c", f"{program}; time.sleep(15)", str(tmp_path / place)], env=environment, check=True)
    assert hub.strangers == []
