"""`export`: write a model as a graph that runs without glimpsezoo."""

import json
from typing import Any

import click

from glimpsezoo.commands import names, options


@click.command()
@click.argument("model", shell_complete=names.models)
@click.option("-o", "--output", required=True, metavar="PATH", help="NAME.onnx, NAME.pt2, or a folder (FOLDER/) for a graph per step.")
@click.option("--steps", type=click.IntRange(1), metavar="T", help="The most looks of an image.  [default: the model's own number]")
@options.checkpoint
@options.together(options.data, options.data_dir, options.settings, options.seed, options.force, options.as_json, options.debug)
def export(model: str, **given: Any) -> None:
    """Write MODEL as an ONNX graph or a torch.export program.

    It runs without glimpsezoo. The graph takes images in [0, 1] in batches of any size, and gives logits. With an exit rule, images that
    exit leave the batch within the graph. A folder gets a graph per step and 'run.py', which runs them and stops once all images are done.
    The outputs are compared with those of the model before the command ends.

    \b
    Examples:
      glimpsezoo export mgnet.digits -o mgnet.onnx
      glimpsezoo export mgnet.digits -o mgnet.pt2 --steps 2
      glimpsezoo export mgnet.digits -o mgnet/ --set anytime.threshold=0.9
    """
    from glimpsezoo.zoo.early import check_names

    given["checkpoint"] = options.as_card(given["checkpoint"], [model], given["data"])
    check_names([model], data=given["data"], checkpoint=given["checkpoint"], sets=given["sets"])
    from glimpsezoo.workflows.exporting import ExportRequest, export_card

    done = export_card(ExportRequest(model=model, **{key: value for key, value in given.items() if key not in {"as_json", "debug"}}))
    if given["as_json"]:
        report = {"path": str(done.path), "files": [file.name for file in done.files], "difference": done.difference, **done.described}
        options.tell(json.dumps(report, indent=2))
        return
    options.tell(f"{model} -> {done.path}")
    steps, exits = done.described["steps"], done.described["exit_rule"]["name"]
    options.say(
        f"{steps} step{'s' if steps > 1 else ''}, exit rule {exits}; inputs: {', '.join(done.described['inputs'])}; "
        f"logits up to {done.scale:.3g} differ from torch by at most {done.difference:.1e}"
    )
