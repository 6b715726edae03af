"""Write a model as a graph that runs without glimpsezoo: a torch.export program, or ONNX."""

import copy
import io
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from glimpsezoo.core.exits import ExitRule, Fixed
from glimpsezoo.core.inference import evaluating
from glimpsezoo.core.noise import Noise
from glimpsezoo.core.protocol import Computing, GlimpseModel
from glimpsezoo.core.rollout import Trace, budget_of, rollout
from glimpsezoo.core.symbolic import symbolic
from glimpsezoo.core.unrolled import AllSteps, GraphOutputs, OneStep, Stepped, names_of
from glimpsezoo.data.loading import open_data
from glimpsezoo.data.preprocessing import Preprocessing
from glimpsezoo.errors import GlimpseZooError, one_line
from glimpsezoo.files import output_to, write_whole
from glimpsezoo.measures.calibration import given_rule
from glimpsezoo.measures.catalogue import EXITS
from glimpsezoo.workflows import onnx_files
from glimpsezoo.workflows.predicting import preprocessing_like, transform_of
from glimpsezoo.zoo.card_config import CardConfig
from glimpsezoo.zoo.names import Assignments, argument_names, build_model, choose_model, data_folder, declared_settings
from glimpsezoo.zoo.own_data import choose_data
from glimpsezoo.zoo.plugins import registry

MOST = 65_536  # images in a batch
NEEDED = ("onnx", "onnxscript", "onnxruntime")
TESTED = "2.14"  # the version of torch whose exporter the tests use
CLOSE = 0.01  # of the largest logit: a graph that differs by more is wrong


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """The arguments and options of `glimpsezoo export`."""

    model: str
    output: str
    steps: int | None = None
    checkpoint: str | None = None
    data: str | None = None
    """Those whose images the model takes. None takes the data of the card."""
    data_dir: str | None = None
    sets: tuple[str, ...] = ()
    """`--set` texts."""
    seed: int = 0
    force: bool = False


@dataclass(frozen=True)
class Exported:
    """What was written."""

    path: Path
    """The file, or the folder of a file per step."""
    files: tuple[Path, ...]
    described: dict[str, Any] = field(repr=False)
    """What the files say of themselves: the model, its inputs and outputs, its classes."""
    difference: float
    """The largest difference of a logit from torch, over generated images in batches of 1 and of 5."""
    scale: float
    """The largest of these logits."""


def export_card(request: ExportRequest) -> Exported:
    """Export a model that is given by name. Raises `GlimpseZooError` for a wrong name or setting, and as `export` does."""
    _checked(request.output, force=request.force)
    sets = Assignments.parse(request.sets, argument_names([request.model]), scopes=("data", EXITS))
    sets.check_all_declared({request.model: declared_settings(request.model)})
    rule = given_rule(sets, registry())
    chosen = choose_data([request.model], request.data, sets.of("data"), request.checkpoint)
    choice = choose_model(request.model, chosen.name, sets, request.checkpoint)
    if choice.card and request.data is None and not sets.of("data"):
        task = choice.card.config.task.task()
    else:
        task = open_data(chosen.spec, chosen.name, "test", chosen.settings, data_folder(request.data_dir)).task
    model = build_model(choice, task, checkpoint=request.checkpoint, seed=request.seed)
    return export(
        model,
        request.output,
        steps=request.steps,
        exit_rule=rule,
        seed=request.seed,
        force=request.force,
        transform=preprocessing_like(chosen.spec, chosen.settings, task),
    )


def export(
    model: GlimpseModel[Any],
    path: str | Path,
    *,
    steps: int | None = None,
    exit_rule: ExitRule | None = None,
    seed: int = 0,
    force: bool = False,
    transform: Preprocessing | None = None,
) -> Exported:
    """Write `model` as a graph that runs without glimpsezoo, for batches of any size, and compare it with the model.

    path: `NAME.onnx` for ONNX; `NAME.pt2` for a torch.export program; or a folder, which gets an ONNX graph per step and `run.py`, which
    runs them with numpy and onnxruntime only and stops once all images are done. steps: as for `rollout`. exit_rule: lets images exit
    early, and is a part of the graph. seed: that of the images' noise, for a model that draws from it; the ids of the images are then an
    input. force: overwrite what is there. transform: what brings images to the model, which the graph describes; None is
    `transform_of(model)`.

    ONNX needs the packages onnx, onnxscript and onnxruntime (the extra `export`). Raises `GlimpseZooError` without them,
    for a path that exists, for a model that torch or ONNX cannot express, and if the outputs differ.
    """
    path, kind = _checked(path, force=force)
    model = model if model.device.type == "cpu" else copy.deepcopy(model).cpu()  # a graph has no device
    budget, rule = budget_of(model, steps), exit_rule or Fixed()
    described = describe(model, budget, rule, seed, transform or transform_of(model))
    before, model.computing = model.computing, Computing()
    try:
        with evaluating(model), torch.no_grad(), output_to(path if kind == "" else path.parent), _quiet(), _one_line(model, kind):
            if kind == "":
                files = onnx_files.write_steps(path, _programs(model, budget, rule, seed), described)
            elif kind == ".onnx":
                files = onnx_files.write_one(path, _program(model, budget, rule, seed), described)
            else:
                files = _write_program(path, _program(model, budget, rule, seed), described)
            difference, scale = _compared(model, path, kind, budget, rule, seed)
    finally:
        model.computing = before
    if not difference <= CLOSE * max(1.0, scale):
        raise GlimpseZooError(
            f"expected a graph of {_name(model)} with its logits, got some that differ by {difference:.3g}: do not use {str(path)!r}"
        )
    return Exported(path, files, described, difference, scale)


def _checked(given: str | Path, *, force: bool) -> tuple[Path, str]:
    """The path and its ending ('' for a folder). Raises `GlimpseZooError` if something is missing or in the way."""
    path = Path(given)
    kind = "" if path.is_dir() or str(given).endswith(("/", "\\")) else path.suffix.lower()
    if kind not in {"", ".onnx", ".pt2"}:
        raise GlimpseZooError(f"--output expects NAME.onnx, NAME.pt2 or a folder, got {path.name!r}: end the name of a folder with a slash")
    missing = [name for name in NEEDED if find_spec(name) is None]
    if kind != ".pt2" and missing:
        raise GlimpseZooError(f"ONNX needs the packages {', '.join(NEEDED)}, got no {missing[0]}: pip install {' '.join(NEEDED)}")
    if not kind and path.exists() and not path.is_dir():
        raise GlimpseZooError(f"--output expects NAME.onnx, NAME.pt2 or a folder, got {path.name!r}, which is a file: choose another name")
    if path.exists() and not force and (kind or any(path.iterdir())):
        raise GlimpseZooError(f"expected a new file or folder, got {str(path)!r}, which exists: choose another --output, or --force")
    return path, kind


def _name(model: GlimpseModel[Any]) -> str:
    return model.card.name if model.card else type(model).__name__


def describe(model: GlimpseModel[Any], steps: int, rule: ExitRule, seed: int, transform: Preprocessing) -> dict[str, Any]:
    """What a graph says of itself: everything that whoever runs it must know. Values are text, or JSON as text in the files."""
    card: CardConfig | None = model.card
    height, width = model.task.image_size
    return {
        "model": card.model if card else type(model).__name__,
        "card": card.name if card else None,
        "weights_sha256": card.weights.sha256 if card and card.weights else None,
        "settings": model.config.model_dump(mode="json"),
        "image_size": [height, width],
        "channels": model.task.channels,
        "classes": list(model.task.classes),
        "preprocessing": f"{transform.extra_repr()}; float32 in [0, 1], [batch, channels, height, width]; the graph normalises",
        "steps": steps,
        "exit_rule": {"name": rule.name, **rule.parameters},
        "seed": seed if model.stochastic else None,
        "inputs": {
            "images": "float32 [batch, channels, height, width]",
            **({"ids": "int64 [batch]: which image's noise each image draws from"} if model.stochastic else {}),
        },
        "outputs": {"logits": "float32 [batch, classes], at the last step of each image", "last_step": "int64 [batch], from 1"},
        "made_by": f"glimpsezoo {version('glimpsezoo')}, torch {torch.__version__}",
    }


def _example(model: GlimpseModel[Any], count: int) -> tuple[Tensor, ...]:
    """The inputs of a graph for `count` generated images, which are smooth like photographs."""
    generator = torch.Generator().manual_seed(count)
    coarse = torch.rand(count, model.task.channels, 6, 6, generator=generator)
    images = F.interpolate(coarse, model.task.image_size, mode="bilinear")
    return (images, torch.arange(count)) if model.stochastic else (images,)


def _program(model: GlimpseModel[Any], steps: int, rule: ExitRule, seed: int) -> ExportedProgram:
    """All steps in one graph."""
    given, batch = _example(model, 3), Dim("batch", min=1, max=MOST)
    return _followed(AllSteps(model, steps, rule, seed), given, tuple({0: batch} for _ in given))


def _followed(graph: nn.Module, given: tuple[Any, ...], sizes: tuple[Any, ...]) -> ExportedProgram:
    with symbolic():
        return torch.export.export(graph.eval(), given, dynamic_shapes=sizes)


def _programs(model: GlimpseModel[Any], steps: int, rule: ExitRule, seed: int) -> Iterator[onnx_files.Step]:
    """A graph per step, each with the names of its inputs and outputs."""
    given, batch = _example(model, 3), Dim("batch", min=1, max=MOST)
    sizes: tuple[Any, ...] = tuple({0: batch} for _ in given)
    inputs = ["images", "ids"][: len(given)]
    layouts: list[Any] = []
    for step in range(1, steps + 1):
        program = _followed(OneStep(model, steps, rule, seed, layouts), given, sizes)
        kept = names_of(layouts[-1]) if step < steps else []
        outputs = [*Stepped._fields[:3], *(f"next_{name}" for name in kept)]
        yield onnx_files.Step(program, inputs, outputs)
        if step < steps:
            state, state_sizes = _like_outputs(program, skip=3)
            images = given[0]
            given, sizes = (images, torch.arange(len(images)), state), ({0: batch}, {0: batch}, state_sizes)
            inputs = ["images", "places", *kept]


def _like_outputs(program: ExportedProgram, skip: int) -> tuple[list[Tensor], list[dict[int, Any]]]:
    """Tensors of the shapes of a graph's outputs after the first `skip`, and their sizes: equal symbols are equal sizes."""
    (found,) = next(node for node in program.graph.nodes if node.op == "output").args
    known: dict[str, Any] = {}
    tensors, sizes = [], []
    for node in found[skip:]:
        value = node.meta["val"]
        mine: dict[int, Any] = {}
        shape = []
        for axis, size in enumerate(value.shape):
            if isinstance(size, int):
                shape.append(size)
                continue
            mine[axis] = known.setdefault(str(size), Dim(f"rows_{len(known)}", min=0 if known else 1, max=MOST * 1024))
            shape.append(5 + list(known).index(str(size)))
        tensors.append(torch.zeros(shape, dtype=value.dtype))
        sizes.append(mine)
    return tensors, sizes


def _write_program(path: Path, program: ExportedProgram, described: dict[str, Any]) -> tuple[Path, ...]:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    torch.export.save(program, content, extra_files={onnx_files.DESCRIPTION: json.dumps(described, indent=2)})
    write_whole(path, content.getvalue())
    return (path,)


def _compared(model: GlimpseModel[Any], path: Path, kind: str, steps: int, rule: ExitRule, seed: int) -> tuple[float, float]:
    """The largest difference of a logit between the files and the model (infinite if images exit at other steps), and the largest logit."""
    run = _run_program(path) if kind == ".pt2" else onnx_files.runner(path)
    differences, scales = [], []
    for count in (1, 5):
        given = _example(model, count)
        wanted = _rolled(model, given, steps, rule, seed)
        found = run(*given)
        same = bool((found.last_step == wanted.last_step).all())
        differences.append(float((found.logits - wanted.logits).abs().max()) if same else float("inf"))
        scales.append(float(wanted.logits.abs().max()))
    return max(differences), max(scales)


def _rolled(model: GlimpseModel[Any], given: Sequence[Tensor], steps: int, rule: ExitRule, seed: int) -> Trace:
    noise = Noise.of(seed, given[1]) if model.stochastic else None
    return rollout(model, given[0], steps=steps, exit_rule=rule, noise=noise)


def _run_program(path: Path) -> Any:
    module = torch.export.load(path).module()
    return lambda *given: GraphOutputs(*module(*given))


@contextmanager
def _one_line(model: GlimpseModel[Any], kind: str) -> Iterator[None]:
    """Turn any error of torch's exporters into one line. Raises `GlimpseZooError`."""
    try:
        yield
    except GlimpseZooError:
        raise
    except Exception as error:  # exporters raise many types
        if isinstance(error, OSError) and error.errno is not None:  # a full disk, for one; without a number, torch found no source code
            raise
        why = f"{type(error).__name__}: {one_line(error):.200}"
        to = "a torch.export program" if kind == ".pt2" else "ONNX"
        raise GlimpseZooError(
            f"expected a model that torch {torch.__version__} can export, got {_name(model)}, which does not become {to} ({why}): "
            f"update torch ({TESTED} was tested), export another form (NAME.pt2, a folder), or serve it with gz.inference"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' logs and warnings: they describe failures in thousands of lines, of which the last one is the error."""
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
