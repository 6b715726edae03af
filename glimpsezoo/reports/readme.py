"""The README.md of a card, rendered from its config and evidence with `templates/card.md.jinja`."""

import shlex
from itertools import zip_longest

from glimpsezoo.escaping import Markdown, code, yaml
from glimpsezoo.escaping import markdown as escaped
from glimpsezoo.files import write_whole
from glimpsezoo.measures.result import Result, at_least_text
from glimpsezoo.measures.shown import Cell, Table
from glimpsezoo.measures.text import macs_text
from glimpsezoo.reports.table import columns_of, markdown, measured_lines
from glimpsezoo.reports.templates import template
from glimpsezoo.specs import DatasetSpec
from glimpsezoo.zoo.card_config import UNKNOWN, Published
from glimpsezoo.zoo.cards import CURVE, README, ROWS, Card, address_of
from glimpsezoo.zoo.hub import PREFIX
from glimpsezoo.zoo.plugins import registry
from glimpsezoo.zoo.results import evidence, measure_classes


def write_card_readme(card: Card) -> None:
    """Write a card's README.md, replacing an existing one."""
    write_whole(card.folder / README, card_text(card, evidence(card)).encode())


def card_text(card: Card, result: Result | None) -> str:
    """The README.md of a card: Hub metadata, description, results, training, limitations."""
    config = card.config
    address = f"{PREFIX}{config.hub}" if config.hub and not config.released else address_of(card)
    rows = tuple((Cell(key), Cell(str(value))) for key, value in config.config.items())
    return template("card.md.jinja").render(
        card=card,
        config=config,
        trained=dict.fromkeys(("command", "minutes", "machine", "torch"), "?") | {"notes": ()} | config.trained,
        page=Markdown(card.origin.page) if card.origin else "",
        result=result,
        metadata=Markdown(_metadata(card, result)),
        needs=Markdown(_needs(card)),
        run=run_command(card, address),
        steps=_steps(result) if result and result.accuracy else None,
        published=_published(config.published(), result),
        blocks=_blocks(result) if result else None,
        footnote=" ".join(measured_lines([result])) if result else "",
        rows_file=ROWS,
        curve=CURVE if (card.folder / CURVE).is_file() else "",
        settings=Table("", ("setting", "value"), rows, frozenset({"setting", "value"})),
    )


def _needs(card: Card) -> str:
    """What the command that measures a card needs, in Markdown."""
    own, plugin = card.config.data.name, f"glimpsezoo with the plugin {code(card.config.plugin)}"
    spec = next((each for each in registry().all(DatasetSpec) if own == each.name or (each.prefix and own.startswith(each.name))), None)
    if own == UNKNOWN:
        return f"{plugin}, and the data that it was trained on, which it does not name"
    if spec is None:
        return f"{plugin}, and the plugin of the data set {code(own)}"
    if spec.embedded:
        return f"{plugin}; the data are part of glimpsezoo"
    if spec.local:
        return f"{plugin}, and the folder {code(own.removeprefix(spec.name))} with its images"
    return f"{plugin}, and the data set {code(own)}, from the Hub or (`--data-dir DIR`) from a copy on disk"


def run_command(card: Card, *arguments: str, data: str | None = None, data_dir: str | None = None) -> str:
    """The command that measures a card, or several by one recipe, named by `arguments`, on the data that it was trained on.

    data: the name of the data on this machine, if it differs from the card's. data_dir: the folder that holds them. `--data` is left out
    if the card's own name for its data is enough to find them.
    """
    own = card.config.data.name
    if data is None and own == UNKNOWN:
        data = "NAME"
    elif data is None and any(spec.local and own.startswith(spec.name) for spec in registry().all(DatasetSpec)):
        data = own
    words = [*(["--data", data] if data else []), *(["--data-dir", data_dir] if data_dir else [])]
    return shlex.join(["glimpsezoo", "run", *arguments, *words])


def _steps(result: Result) -> Table:
    """Detailed accuracy and cost, one row per step."""
    shown = [column for column in columns_of([result], "details") if column.heading != "paper's MACs"]
    rows = tuple((Cell(str(k + 1)), *(column.cell(result, k) for column in shown)) for k in range(len(result.accuracy.steps)))
    headings = ("step", *(column.heading for column in shown))
    return Table("", headings, rows, frozenset(headings))


def _published(published: Published | None, result: Result | None) -> Table | None:
    """The authors' accuracy and cost per step, and the card's own beside them if it is measured; None without any."""
    if published is None or not (published.top1 or published.macs):
        return None
    ours = result.accuracy.steps if result and result.accuracy else []
    columns = {
        "authors' top-1 %": [f"{100 * top1:.2f}" for top1 in published.top1],
        "top-1 % here": [f"{100 * step.top1.value:.2f}" for step in ours],
        "authors' MACs": [macs_text(macs) for macs in published.macs],
        "MACs here": [macs_text(step.macs) for step in ours],
    }
    shown = {heading: texts for heading, texts in columns.items() if texts}
    rows = [(Cell(str(k)), *map(Cell, texts)) for k, texts in enumerate(zip_longest(*shown.values(), fillvalue=""), 1)]
    headings = ("step", *shown)
    return Table("", headings, tuple(rows), frozenset(headings))


def _blocks(result: Result) -> tuple[list[Markdown], list[Markdown]]:
    """Markdown of the measures: first of those that belong with the table of steps (`plain`), then of the others."""
    plain, others = [], []
    for name, kind in measure_classes().items():
        section = getattr(result, name)
        found = [_block(block) for block in kind.card_text(result)] if section not in (None, ()) else []
        (plain if kind.plain else others).extend(found)
    return [*plain, *([escaped(f"{at_least_text(result)}.")] if result.at_least else [])], others


def _block(block: str | Table) -> Markdown:
    return Markdown(block if isinstance(block, str) else "\n\n".join(filter(None, (escaped(block.caption), markdown(block)))))


def _metadata(card: Card, result: Result | None) -> str:
    """Model-card metadata of the Hub (YAML)."""
    from huggingface_hub import EvalResult, ModelCardData  # reads its environment when it is imported
    from huggingface_hub.utils import yaml_dump

    config, found = card.config, []
    if result and result.accuracy:
        found = [
            EvalResult(
                task_type="image-classification",
                dataset_type=_data_set(card, result),
                dataset_name=result.data.name,
                dataset_split=result.data.split,
                metric_type="accuracy",
                metric_value=result.accuracy.top1.value,
            )
        ]
    data = ModelCardData(
        license=config.license,
        library_name="glimpsezoo",
        pipeline_tag="image-classification",
        tags=["glimpsezoo", config.model],
        datasets=[_data_set(card, result)],
        metrics=["accuracy"],
        model_name=config.name,
        eval_results=found or None,
    )
    return yaml_dump(yaml(data.to_dict()), sort_keys=False).strip()


def _data_set(card: Card, result: Result | None) -> str:
    """The data set's id on the Hub if it comes from there, else its name for `--data`."""
    source = (result.data.source if result else None) or card.config.data.name
    return source.removeprefix("hf:").partition("@")[0] if source.startswith("hf:") else card.config.data.name
