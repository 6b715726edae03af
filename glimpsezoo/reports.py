"""A card's README.md, made from its config and its evidence."""

import json
import shlex

from pydantic import ValidationError

from glimpsezoo.cards import CURVE, README, RESULT, ROWS, UNKNOWN, Card
from glimpsezoo.files import write_whole
from glimpsezoo.hub import PREFIX
from glimpsezoo.plugins import registry
from glimpsezoo.records import Result
from glimpsezoo.specs import DatasetSpec
from glimpsezoo.tables import at_least_text, attack_text, cost_text, footnote, interval, percent


def evidence(card: Card) -> Result | None:
    """The card's result.json; None if there is none that was measured with these very weights."""
    path = card.folder / RESULT
    try:
        result = Result.model_validate_json(path.read_bytes()) if path.is_file() else None
    except ValidationError:
        return None
    used = result.model.checkpoint if result else None
    return result if used and card.config.weights and used.sha256 == card.config.weights.sha256 else None


def write_card_readme(card: Card) -> None:
    """(Re)write a card's README.md from its config and its evidence."""
    write_whole(card.folder / README, card_text(card, evidence(card)).encode())


def card_text(card: Card, result: Result | None) -> str:
    """The README.md of a card: the Hub's metadata, what it is, its numbers, how it was made, its limits."""
    config = card.config
    lines = ["---", *_metadata(card, result), "---", "", f"# {config.name}", ""]
    lines += [f"`{config.model}` (plugin `{config.plugin}`) for `{config.data.name}`, as a card of glimpsezoo.", ""]
    address = f"{PREFIX}{config.hub}" if config.hub else card.name
    lines += ["```", f"pip install {config.plugin}", run_command(card, address), "```", ""]
    if config.weights and not (card.has_file or config.hub):
        lines += [f"Its weights, {config.weights.bytes / 1e6:.1f} MB, are not in this folder: train it as below, and name that card.", ""]
    lines += _numbers(result) if result else [f"Not measured yet: `{run_command(card, card.name)} --update-card`.", ""]
    lines += ["## How it was made", "", *_made(card), ""]
    lines += ["## Settings", "", "| setting | value |", "| --- | --- |"]
    lines += [f"| {key} | {_cell(value)} |" for key, value in config.config.items()]
    lines += ["", "## Limits", "", *_limits(card), ""]
    return "\n".join(lines)


def run_command(card: Card, argument: str, *, data: str | None = None, data_dir: str | None = None) -> str:
    """What measures a card, named by `argument`, on the data that it was trained on, which it knows by name.

    data: their name on this machine, where that is another one. data_dir: the folder that holds them. Where the card's name does not
    tell where its data lie, they are named.
    """
    own = card.config.data.name
    if data is None and own == UNKNOWN:
        data = "NAME"
    elif data is None and any(spec.local and own.startswith(spec.name) for spec in registry().all(DatasetSpec)):
        data = own
    words = [*(["--data", data] if data else []), *(["--data-dir", data_dir] if data_dir else [])]
    return shlex.join(["glimpsezoo", "run", argument, *words])


def _metadata(card: Card, result: Result | None) -> list[str]:
    """Model-card metadata of the Hub (YAML)."""
    config = card.config
    lines = [f"license: {config.license}", "library_name: glimpsezoo", "pipeline_tag: image-classification"]
    lines += ["tags:", "- glimpsezoo", f"- {json.dumps(config.model)}", "datasets:", f"- {json.dumps(_data_set(card, result))}"]
    lines += ["metrics:", "- accuracy"]
    if result and result.accuracy:
        lines += ["model-index:", f"- name: {json.dumps(config.name)}", "  results:", "  - task:", "      type: image-classification"]
        lines += ["    dataset:", f"      name: {json.dumps(result.data.name)}", f"      type: {json.dumps(_data_set(card, result))}"]
        lines += [f"      split: {result.data.split}", "    metrics:", "    - type: accuracy", f"      value: {result.accuracy.top1.value}"]
    return lines


def _data_set(card: Card, result: Result | None) -> str:
    """Its id on the Hub, of data that come from there; else the name that `--data` takes."""
    source = (result.data.source if result else None) or card.config.data.name
    return source.removeprefix("hf:").partition("@")[0] if source.startswith("hf:") else card.config.data.name


def _numbers(result: Result) -> list[str]:
    lines = ["## Numbers", ""]
    if result.accuracy:
        lines += ["| step | top-1 % | 95 % interval | top-5 % | NLL | ECE % | MACs an image |", "| --- " * 7 + "|"]
        for s in result.accuracy.steps:
            cells = [
                str(s.step),
                percent(s.top1),
                interval(s.top1),
                percent(s.top5),
                f"{s.nll.value:.3f}",
                percent(s.ece),
                cost_text(result, s.macs),
            ]
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    elif result.flops:
        lines += [f"It takes {cost_text(result, result.flops.macs.mean)} MACs an image.", ""]
    if result.flops and result.flops.paper_macs:
        paper = result.flops.paper_macs
        lines += [f"The paper's convention (`{paper.convention}`) counts {cost_text(result, paper.value)} MACs for all steps.", ""]
    if result.flops:
        lines += [f"Ran and not counted as MACs: {', '.join(result.flops.uncounted) or 'nothing'}.", ""]
    if result.at_least:
        lines += [f"{at_least_text(result)}.", ""]
    lines += [footnote(result), "", *_exits(result), *_corrupted(result), *_attacked(result)]
    lines += ["Measured by", "", "```", result.run.command, "```", ""]
    env = result.environment
    return [
        *lines,
        f"on {env.platform}, {env.device}, torch {env.packages.get('torch', '?')}. The rows, one an image, are in `{ROWS}`.",
        "",
    ]


def _exits(result: Result) -> list[str]:
    """The anytime curve, of a model that can exit."""
    anytime = result.anytime
    if anytime is None or len(anytime.curve) == 1:
        return []
    lines = ["### With early exits", "", "| exit rule | threshold | top-1 % | 95 % interval | steps | MACs an image |", "| --- " * 6 + "|"]
    for each in anytime.curve:
        cells = [
            each.rule,
            f"{each.threshold:.8g}",  # those of a sure model differ in their last digits
            percent(each.top1),
            interval(each.top1),
            f"{each.steps_mean:.2f}",
            cost_text(result, each.macs_mean),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    told = f"Thresholds from the {anytime.calibrated_on} split; images that exit leave the batch."
    stops = " *fixed*: all images stop at that look." if len(anytime.curve) > len(anytime.exits) else ""
    return [*lines, "", f"{told}{stops}", ""]


def _corrupted(result: Result) -> list[str]:
    """Accuracy under each corruption at five severities."""
    found = result.corruptions
    if found is None:
        return []
    lines = ["### Under corruptions", "", "| top-1 % at severity | 1 | 2 | 3 | 4 | 5 |", "| --- " * 6 + "|"]
    for name, cells in found.table.items():
        lines.append(f"| {name} | " + " | ".join(percent(cell) if cell else "" for cell in cells) + " |")
    text = f"Mean {percent(found.mean)} % ({interval(found.mean)}) of {found.n} images"
    text += f", {percent(found.clean)} % as they are" if found.clean else ""
    text += (
        f"; mCE {found.mce.value:.1f} against {_cell(found.mce.baseline)}" if found.mce and found.mce.baseline != result.model.name else ""
    )
    return [*lines, "", f"{text}. Made by {_cell(found.implementation)}: this is not ImageNet-C.", ""]


def _attacked(result: Result) -> list[str]:
    """Accuracy under each attack, with the verdict on whether that can be believed."""
    if not result.attacks:
        return []
    lines = ["### Under attack", "", "| attack | top-1 % | 95 % interval | masking | threat model |", "| --- " * 5 + "|"]
    for attack in result.attacks:
        text = attack_text(attack, at_least=result.at_least)
        cells = [_cell(attack.name), percent(attack.top1), interval(attack.top1), result.verdict_on(attack), _cell(text)]
        lines.append("| " + " | ".join(cells) + " |")
    doubted = {name: check for name, check in (result.masking.checks if result.masking else {}).items() if check["verdict"] != "ok"}
    for name, check in doubted.items():
        numbers = ", ".join(f"{key.replace('_', ' ')} {_said(value)}" for key, value in check.items() if key != "verdict")
        lines += ["", f"`{_cell(name)}` is {check['verdict']}: {_cell(numbers)}."]
    return [*lines, ""]


def _said(value: object) -> str:
    """A check's number to three digits, or several of them."""
    if isinstance(value, list | tuple):
        return " ".join(map(_said, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _made(card: Card) -> list[str]:
    trained = card.config.trained
    if not trained:
        return ["Nobody wrote down how."]
    if "imported_from" in trained:
        notes = [f"- {note}" for note in trained.get("notes", ())]
        return [
            f"Imported from `{trained['imported_from']}` by",
            "",
            "```",
            str(trained["command"]),
            "```",
            *([""] if notes else []),
            *notes,
        ]
    curve = ["", f"![Losses of {card.name}, and its accuracy on the calibration split, by epochs]({CURVE})"]
    return [
        "Trained by",
        "",
        "```",
        str(trained["command"]),
        "```",
        "",
        f"in {trained['minutes']} minutes ({trained['machine']}, torch {trained['torch']}); the log is `training.jsonl`, "
        "the recipe in `config.json`. It saw the training and calibration splits alone.",
        *(curve if (card.folder / CURVE).is_file() else []),
    ]


def _limits(card: Card) -> list[str]:
    height, width = card.config.task.image_size
    return [
        f"It tells {len(card.config.task.classes)} classes apart on images like those of `{card.config.data.name}` "
        f"({height} x {width} px); nothing is known of others. It is a research model, not tested for any use that matters to "
        "anyone's safety."
    ]


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|")
