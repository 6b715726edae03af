"""Programs of torch.export as ONNX files that describe themselves."""

import hashlib
import json
import os
import runpy
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.export import ExportedProgram

from glimpsezoo.core.decompositions import decompositions
from glimpsezoo.core.unrolled import GraphOutputs
from glimpsezoo.files import replace_all, write_whole

DESCRIPTION = "glimpsezoo.json"
"""Of a folder, the file that says what a single graph says in its metadata."""
WEIGHTS = "weights.bin"
RUNNER = "run.py"
SMALL = 1024  # bytes of a weight that stays within its graph


class Step(NamedTuple):
    """The graph of one step."""

    program: ExportedProgram
    inputs: list[str]
    outputs: list[str]


def converted(program: ExportedProgram, inputs: list[str] | None, outputs: list[str]) -> Any:
    """The ONNX model (a `ModelProto`) of a program."""
    from onnxscript import optimizer  # pyright: ignore[reportMissingImports]

    program = program.run_decompositions(decompositions())
    found = torch.onnx.export(program, dynamo=True, optimize=False, verbose=False, input_names=inputs, output_names=outputs)
    assert found is not None
    optimizer.fold_constants(found.model)  # of torch's own optimisation, its rewriting of patterns takes minutes for large graphs
    optimizer.remove_unused_nodes(found.model)
    proto = found.model_proto
    for node in (*proto.graph.node, *(each for function in proto.functions for each in function.node)):
        node.ClearField("metadata_props")  # with the paths of this machine's source files
    return proto


def describe(proto: Any, described: dict[str, Any]) -> None:
    """Adds what a graph says of itself: text as it is, anything else as JSON."""
    for key, value in described.items():
        if value is not None:
            proto.metadata_props.add(key=f"glimpsezoo.{key}", value=value if isinstance(value, str) else json.dumps(value))


def write_one(path: Path, program: ExportedProgram, described: dict[str, Any]) -> tuple[Path, ...]:
    """All steps in one file, weights included."""
    proto = converted(program, list(described["inputs"]), list(GraphOutputs._fields))
    describe(proto, described)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, proto.SerializeToString())
    return (path,)


def write_steps(folder: Path, steps: Iterable[Step], described: dict[str, Any]) -> tuple[Path, ...]:
    """A file per step, their weights, each stored once, and the program that runs them."""
    files: dict[str, bytes] = {}
    places, content = dict[bytes, int](), bytearray()
    for number, step in enumerate(steps, 1):
        proto = converted(step.program, step.inputs, step.outputs)
        describe(proto, described)
        _move_weights(proto, places, content)
        files[f"step-{number}.onnx"] = proto.SerializeToString()
    files[WEIGHTS] = bytes(content)
    files[DESCRIPTION] = json.dumps(described, indent=2).encode()
    files[RUNNER] = Path(__file__).with_name("exported_runner.py").read_bytes()
    older = {path.name: None for path in folder.glob("step-*.onnx") if path.name not in files}  # of a model with more steps
    replace_all(folder, {**files, **older})
    return tuple(folder / name for name in files)


def _move_weights(proto: Any, places: dict[bytes, int], content: bytearray) -> None:
    """Moves a graph's weights to the end of `content`, unless equal ones are there. places: where those of each digest begin."""
    for tensor in proto.graph.initializer:
        if len(tensor.raw_data) < SMALL:
            continue
        digest = hashlib.sha256(tensor.raw_data).digest()
        if digest not in places:
            content.extend(bytes(-len(content) % 4096))  # onnxruntime maps pages
            places[digest] = len(content)
            content.extend(tensor.raw_data)
        for key, value in {"location": WEIGHTS, "offset": places[digest], "length": len(tensor.raw_data)}.items():
            tensor.external_data.add(key=key, value=str(value))
        tensor.data_location = 1  # TensorProto.EXTERNAL
        tensor.ClearField("raw_data")


def runner(path: Path) -> Callable[..., GraphOutputs]:
    """What runs a file, or a folder by its own program, as `AllSteps` does."""
    if path.is_dir():
        classify = runpy.run_path(str(path / RUNNER))["classify"]
        return lambda *given: GraphOutputs(*(torch.from_numpy(each) for each in classify(*(part.numpy() for part in given))))
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime >= 1.32 would tell its makers
    import onnxruntime  # pyright: ignore[reportMissingImports]

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]

    def run(*given: Tensor) -> GraphOutputs:
        feed = {name: part.numpy() for name, part in zip(("images", "ids"), given, strict=False) if name in names}
        return GraphOutputs(*(torch.from_numpy(each) for each in session.run(list(GraphOutputs._fields), feed)))

    return run
