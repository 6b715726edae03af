"""`predict`: what a model says of image files."""

import json
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from glimpsezoo.commands import names, options
from glimpsezoo.errors import GlimpseZooError, counted

if TYPE_CHECKING:
    from glimpsezoo.measures.shown import Cell, Table
    from glimpsezoo.workflows.predicting_files import FilePrediction

SHOWN = 5  # class names in a line


@click.command()
@click.argument("model", shell_complete=names.models)
@click.argument("files", nargs=-1, metavar="FILE...", required=True)
@options.together(
    click.option("--top", default=5, show_default=True, type=click.IntRange(1), metavar="K", help="Name the K most probable classes."),
    click.option("--data", metavar="NAME", shell_complete=names.data, help="The data set whose classes a model without a card has."),
    options.checkpoint,
    options.settings,
    options.device,
    click.option("--batch-size", default=32, show_default=True, type=click.IntRange(1), metavar="N", help="Images in a batch."),
    options.seed,
    click.option("--csv", "as_csv", is_flag=True, help="CSV on standard output."),
    click.option("--json", "as_json", is_flag=True, help="JSON on standard output: one line per image, as soon as it is known."),
    options.debug,
)
def predict(model: str, files: tuple[str, ...], **given: Any) -> int:
    """Say what MODEL sees in image FILES, and where it looked.

    MODEL is a card, or a model whose card is taken. A FILE may be a folder, whose images are taken at any depth, or '-', which reads the
    names of files from standard input, one per line, and answers each at once. Images of any size and mode are brought to the model as its
    own data were. A file that is no image is named on standard error, the others are answered, and the exit status is 1.

    \b
    Examples:
      glimpsezoo predict mgnet.digits seven.png four.png
      glimpsezoo predict my_card photos --csv > predictions.csv
      glimpsezoo predict my_card photos --set anytime.threshold=0.9
      find photos -name '*.jpg' | glimpsezoo predict my_card - --json
      glimpsezoo predict timm:resnet18 --checkpoint timm --data imagenet cat.jpg
    """
    from glimpsezoo.zoo.early import check_names

    given["checkpoint"] = options.as_card(given["checkpoint"], [model], given["data"])
    check_names([model], data=given["data"], checkpoint=given["checkpoint"], sets=given["sets"])
    from glimpsezoo.workflows.predicting_files import PredictRequest, image_files, predict_files, predictor_of

    if given["as_json"] and given["as_csv"]:
        raise GlimpseZooError("expected one format, got --json and --csv: leave one out")
    request = PredictRequest(
        model=model,
        device=options.pick_device(given["device"]),
        data=given["data"],
        sets=tuple(given["sets"]),
        checkpoint=given["checkpoint"],
        top=given["top"],
        seed=given["seed"],
    )
    predictor = predictor_of(request)
    card = predictor.model.card
    if card is not None and model == card.model and given["checkpoint"] is None:
        options.say(f"{model} is the card {card.name} here, which tells apart {_known(card.task.classes)}")
    images = image_files(_from_stdin(files))
    answers, failed = [], 0
    for answer in predict_files(predictor, images, 1 if "-" in files else given["batch_size"]):
        if answer.prediction is None:
            failed += 1
            options.say(answer.error)
        if given["as_json"]:
            options.tell(json.dumps(_values(answer)))
            sys.stdout.flush()
        else:
            answers.append(answer)
    if not given["as_json"]:
        _print(answers, as_csv=given["as_csv"])
    return 1 if failed else 0


def _known(classes: tuple[str, ...]) -> str:
    from glimpsezoo.data.wordnet import english

    return f"{len(classes):,} classes ({', '.join(map(english, classes[:SHOWN]))}{', ...' if len(classes) > SHOWN else ''})"


def _from_stdin(files: Iterable[str]) -> Iterator[str]:
    """The names of files, those of '-' as they come."""
    for name in files:
        if name == "-":
            yield from filter(None, (line.rstrip("\r\n") for line in sys.stdin))
        else:
            yield name


def _values(answer: "FilePrediction") -> dict[str, Any]:
    found = {"error": answer.error} if answer.prediction is None else answer.prediction.to_json()
    return {"image": answer.file, **found}


def _print(answers: "list[FilePrediction]", *, as_csv: bool) -> None:
    from glimpsezoo.reports.table import comma_separated, terminal

    table = _table(answers, numbers=as_csv)
    if as_csv:
        options.tell(comma_separated(table), nl=False)
        return
    if table.rows:
        console = options.stdout()
        console.print(terminal(table, console.width))
    conversions = sorted({words for answer in answers if answer.prediction for words in answer.prediction.conversions})
    for words in conversions:
        count = sum(words in answer.prediction.conversions for answer in answers if answer.prediction)
        options.say(f"{words}: {counted(count, 'image')}")


def _table(answers: "list[FilePrediction]", *, numbers: bool) -> "Table":
    """One row per image. numbers: a column for each further class and its probability, instead of one for all of them in words."""
    from glimpsezoo.measures.shown import Cell, Table
    from glimpsezoo.measures.text import macs_text

    found = [(answer.file, answer.prediction) for answer in answers if answer.prediction]
    failed = [answer for answer in answers if answer.prediction is None] if numbers else []
    further = range(1, max((len(prediction.top) for _, prediction in found), default=1))
    headings = ["image", "prediction", "%"]
    headings += [name for k in further for name in (f"prediction {k + 1}", f"% {k + 1}")] if numbers else ["then"] if further else []
    rows = []
    for file, prediction in found:
        first, *others = prediction.top
        cells = [Cell(file), Cell(first.name), _share(first.probability)]
        if numbers:
            cells += [cell for guess in others for cell in (Cell(guess.name), _share(guess.probability))]
        elif further:
            cells.append(Cell(", ".join(f"{guess.name} {100 * guess.probability:.1f}" for guess in others)))
        macs = Cell(macs_text(prediction.macs, at_least=prediction.macs_at_least), prediction.macs)
        rows.append((*cells, Cell(f"{prediction.exit_step} of {prediction.steps}", prediction.exit_step), macs))
    words = frozenset({"image", "prediction", "then", *(f"prediction {k + 1}" for k in further)})
    headings += ["step", "MACs"]
    if failed:
        rows = [(*row, Cell("")) for row in rows]
        rows += [(Cell(answer.file), *[Cell("")] * (len(headings) - 1), Cell(answer.error)) for answer in failed]
        headings.append("error")
    return Table("", tuple(headings), tuple(rows), words | {"error"})


def _share(probability: float) -> "Cell":
    from glimpsezoo.measures.shown import Cell

    return Cell(f"{100 * probability:.1f}", 100 * probability)
