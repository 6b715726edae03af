"""How models compute: in bfloat16 beside float32, and compiled where there is a compiler."""

import copy
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import TINY, TRACES, Answer, ask, lonely, make_card
from toy_evaluation import MadeUp, job_of, model_of
from toy_models import Peek, batch_of_images

import glimpsezoo as gz
from glimpsezoo.core import computing
from glimpsezoo.core.computing import uncompiled_phases, without_compiler
from glimpsezoo.core.exits import Confidence
from glimpsezoo.core.macs import Meter
from glimpsezoo.core.protocol import Computing, GlimpseModel
from glimpsezoo.core.rollout import Record, rollout
from glimpsezoo.evaluation.jobs import unit_ids
from glimpsezoo.testing import tolerance
from glimpsezoo.zoo.results import read_result

Ask = Callable[..., Answer]
CPU = torch.device("cpu")
TASK = gz.Task((64, 64), 1, tuple("0123456789"))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ask:
    make_card(lonely(monkeypatch, tmp_path) / "cnn4.digits")
    return lambda *words: ask(capsys, "run", *words)


@pytest.fixture
def anew() -> Iterator[None]:
    """Phases that another test compiled, or could not, are forgotten; so are those of this test."""
    computing._compiled.cache_clear()
    yield
    computing._compiled.cache_clear()


def computing_as(model: GlimpseModel[Any], **how: Any) -> GlimpseModel[Any]:
    found = copy.copy(model)
    found.computing = Computing(**how)
    return found


# In bfloat16


@pytest.mark.parametrize("name", ["mgnet", "ranzato", "pyramid-m3", "timm:resnet18"])
def test_in_bf16_places_and_logits_stay_in_float32_and_costs_stay_the_same(name: str):
    settings = {"glimpses": 2, "backbone": "resnet18"} if name == "mgnet" else {}
    model = gz.create_model(name, task=TASK, **settings).eval()
    images, meters, traces = torch.rand(3, 1, 64, 64, generator=torch.Generator().manual_seed(0)), [], []
    for precision in ("float32", "bf16"):
        one = computing_as(model, precision=precision)
        meters.append(Meter(one))
        with torch.no_grad():
            traces.append(rollout(one, images, record=Record(every_step=True, meter=meters[-1]), steps=1))
    exact, rough = traces
    for look in rough.looks:
        assert look.logits is not None
        assert look.logits.dtype == look.decision.regions.centre.dtype == torch.float32
    assert not torch.equal(rough.logits, exact.logits)
    assert (rough.logits - exact.logits).abs().max() < 0.05 * max(1, exact.logits.abs().max())
    assert {phase: macs.tolist() for phase, macs in rough.macs.stopped_at(1).items()} == {
        phase: macs.tolist() for phase, macs in exact.macs.stopped_at(1).items()
    }
    assert meters[0].missing == meters[1].missing == set()


def test_inference_leaves_convolutions_in_bf16():
    model = gz.create_model("cnn4", task=TASK).eval()
    images = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    exact, rough = (computing_as(model, precision=precision) for precision in ("float32", "bf16"))
    with torch.no_grad():
        wanted = rollout(rough, images).logits
    with gz.inference(rough):
        assert torch.equal(rollout(rough, images).logits, wanted)
    with gz.inference(exact):
        assert not torch.equal(rollout(exact, images).logits, wanted)


def test_exit_rules_read_full_logits_and_double_precision_stays_what_it_is():
    seen = []

    class Noting(Confidence):
        def exits(self, logits: torch.Tensor) -> torch.Tensor:
            seen.append(logits.dtype)
            return super().exits(logits)

    model = computing_as(model_of(Peek), precision="bf16")
    rollout(model, batch_of_images(3), exit_rule=Noting(0.8))
    assert set(seen) == {torch.float32}
    assert rollout(copy.deepcopy(model).double(), batch_of_images(3).double()).logits.dtype == torch.float64


def test_a_gradient_goes_through_a_rollout_in_bf16():
    images = batch_of_images(2).requires_grad_()
    rollout(computing_as(model_of(Peek), precision="bf16"), images).logits.sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def test_how_a_model_computes_is_part_of_its_units():
    job, ids = job_of(), set()
    for how in (Computing(), Computing("bf16"), Computing(compiled=True), Computing("bf16", compiled=True)):
        job.model.computing = how
        ids.add(tuple(unit_ids(job)))
    assert len(ids) == 4


def test_both_precisions_stand_beside_each_other(run: Ask, tmp_path: Path):
    answer = run("cnn4", "--limit", "40", "--precision", "bf16,float32", "-o", "out")
    assert answer.status == 0, answer.err
    names = ["cnn4.digits", "cnn4.digits in bf16"]
    found = [read_result((tmp_path / "out" / name.replace(" ", "-") / "result.json").read_text()) for name in names]
    assert [(each.model.name, each.model.precision, each.model.compiled) for each in found] == [
        (names[0], "float32", False),
        (names[1], "bf16", False),
    ]
    assert "cnn4.digits against cnn4.digits in bf16: " in " ".join(answer.out.split())
    (again,) = ask_json(run, "cnn4", "--limit", "40", "--precision", "bf16")
    assert (again.model.name, again.run.units.reused) == (names[1], 1)
    assert again.accuracy == found[1].accuracy
    assert again.accuracy.nll != found[0].accuracy.nll


def test_a_curve_is_compared_with_a_baseline_that_computes_alike(run: Ask):
    few = ("--checkpoint", "none", "--limit", "20", "--measure", "anytime", "--set", "anytime.points=1")
    found = ask_json(run, "mgnet", "cnn4", *TINY, *few, "--precision", "float32,bf16")
    assert [each.anytime.equal_accuracy.baseline for each in found[:2]] == ["cnn4", "cnn4 in bf16"]


def ask_json(run: Ask, *words: str) -> list[Any]:
    answer = run(*words, "--json")
    assert answer.status == 0, answer.err
    return [read_result(json.dumps(each)) for each in answer.json["results"]]


@pytest.mark.parametrize("precision", ["fp16", "", "float32,float64"])
def test_another_precision_is_refused(run: Ask, precision: str):
    answer = run("cnn4", "--precision", precision)
    assert answer.status == 2
    assert f"--precision expects float32, bf16 or both (float32,bf16), got '{precision}'" in answer.err


@pytest.mark.parametrize("words", [("--precision", "bf16"), ("--precision", "float32,bf16"), ("--compile",)])
def test_evidence_is_in_float32_and_not_compiled(run: Ask, words: tuple[str, ...]):
    answer = run("cnn4", *words, "--update-card")
    assert answer.status == 2
    assert f"got {' '.join(words)}: leave one of the two out" in answer.err


def test_the_python_interface_measures_in_bf16_too(run: Ask):
    model = gz.load("cnn4")
    exact, rough = (gz.evaluate(model, "digits", limit=20, precision=precision) for precision in ("float32", "bf16"))
    assert exact.accuracy.nll != rough.accuracy.nll
    assert exact.flops.macs == rough.flops.macs
    assert model.computing == Computing()


# Compiled


def broken(phase: Callable[..., Any]) -> Callable[..., Any]:
    def compiled(*given: Any) -> Any:
        raise RuntimeError("g++ is\nnot here")

    return compiled


def test_without_a_compiler_a_line_says_so_and_nothing_is_compiled(run: Ask, anew: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch, "compile", broken)
    assert without_compiler(CPU) == "g++ is not here"
    (found,) = ask_json(run, "cnn4", "--limit", "20", "--compile")
    assert (found.model.name, found.model.compiled) == ("cnn4.digits", False)
    assert found.notes == ("nothing is compiled, because torch finds no compiler for cpu (g++ is not here)",)
    with pytest.warns(UserWarning, match="nothing is compiled: g\\+\\+ is not here"):
        gz.evaluate(gz.load("cnn4"), "digits", limit=20, compile=True)


def test_a_phase_that_torch_cannot_compile_runs_as_it_is(anew: None, monkeypatch: pytest.MonkeyPatch):
    calls: list[str] = []

    def all_but_locate(phase: Callable[..., Any]) -> Callable[..., Any]:
        def compiled(*given: Any) -> Any:
            calls.append(phase.__name__)
            return broken(phase)() if phase.__name__ == "locate" else phase(*given)

        return compiled

    monkeypatch.setattr(torch, "compile", all_but_locate)
    model = model_of(Peek)
    one = computing_as(model, compiled=True)
    with torch.no_grad():
        assert torch.equal(rollout(one, batch_of_images(5)).logits, rollout(model, batch_of_images(5)).logits)
    assert uncompiled_phases(one) == ["locate"]
    assert calls == ["start", *(["sense", "fuse", "locate"] + ["sense", "fuse"] * 3), "classify"]  # locate is not tried again
    before = len(calls)
    rollout(one, batch_of_images(5))  # with gradients
    with torch.no_grad():
        Meter(one).start(batch_of_images(5), gz.Noise.of(0, torch.arange(5)))  # counted
    assert len(calls) == before


def test_errors_of_the_model_stay_errors(anew: None, monkeypatch: pytest.MonkeyPatch):
    class Failing(Peek):
        def sense(self, *given: Any) -> torch.Tensor:
            raise ValueError("no such place")

    monkeypatch.setattr(torch, "compile", broken)
    with torch.no_grad(), pytest.raises(ValueError, match="no such place"):
        rollout(computing_as(model_of(Failing), compiled=True), batch_of_images(2))


@pytest.fixture
def compiler(anew: None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if why := without_compiler(CPU):
            pytest.skip(f"torch cannot compile here: {why}")


@pytest.mark.slow
def test_compiled_models_are_the_same_up_to_rounding_whatever_their_weights_and_batches(compiler: None):
    models = [model_of(Peek, steps=2) for _ in range(2)]
    with torch.no_grad():
        models[1].head.weight.mul_(-1)  # type: ignore[union-attr]
        for model in models:
            one = computing_as(model, compiled=True)
            for count in (6, 4, 1):
                images = batch_of_images(count)
                trace, wanted = (rollout(each, images, exit_rule=Confidence(0.8)) for each in (one, model))
                assert trace.last_step.tolist() == wanted.last_step.tolist()
                assert ((trace.logits - wanted.logits).abs() <= 2 * tolerance(model, images).logits.max()).all()
            assert uncompiled_phases(one) == [] or not TRACES


def test_a_later_evaluation_has_the_weights_of_its_own_time(compiler: None):
    model, data = model_of(Peek, steps=1), MadeUp()
    for _ in range(3):
        with torch.no_grad():
            for weights in model.parameters():
                weights.mul_(-0.7)
        compiled, plain = (gz.evaluate(model, data, compile=compile) for compile in (True, False))
        assert compiled.accuracy.nll.value == pytest.approx(plain.accuracy.nll.value, rel=1e-4)
    assert model.computing == Computing()
