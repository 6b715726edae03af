"""What people read: the table of a run, its comparisons, and a card's README.md, all made from results."""

import json
import shlex
from collections.abc import Sequence

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from glimpsezoo.cards import README, RESULT, ROWS, Card, write_whole
from glimpsezoo.records import Comparison, Estimate, Pair, Result

TRIVIAL_POLICIES = ("random", "centre", "scan")


def macs_text(macs: float) -> str:
    """A number of MACs with a unit.

    >>> macs_text(10_619_085), macs_text(1.3432e9), macs_text(900)
    ('10.619 M', '1.343 G', '900')
    """
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if macs >= size:
            return f"{macs / size:.3f} {unit}"
    return f"{macs:.0f}"


def percent(estimate: Estimate, digits: int = 1) -> str:
    return f"{100 * estimate.value:.{digits}f}"


def interval(estimate: Estimate, digits: int = 1) -> str:
    return f"{100 * estimate.low:.{digits}f} to {100 * estimate.high:.{digits}f}"


def display_name(result: Result) -> str:
    """The model's name, and what keeps its numbers from being those of a trained model that looks where it has learned to."""
    policy = [result.model.policy] if result.model.policy in TRIVIAL_POLICIES else []
    marks = policy + ([] if result.model.checkpoint else ["untrained"])
    return result.model.name + (f" ({', '.join(marks)})" if marks else "")


def print_results(results: Sequence[Result], console: Console) -> None:
    """One table: a row for every step of every model, at most 100 columns wide."""
    accurate = any(result.accuracy for result in results)
    counted = any(result.flops and result.flops.paper_macs for result in results)
    table = Table(box=None, pad_edge=False, show_edge=False, header_style="bold")
    table.add_column("model", style="cyan", overflow="fold", max_width=30)
    headings = ["step", *(["top-1 %", "95 % interval", "top-5 %", "NLL", "ECE %"] if accurate else []), "MACs/image"]
    if counted:
        headings.append("paper's MACs")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for result in results:
        for index, cells in enumerate(_step_cells(result, accurate=accurate, counted=counted) or [["failed"]]):
            table.add_row("" if index else Text(display_name(result)), *cells)
    console.print(table)
    console.print(Text(_footnote(next((result for result in results if result.accuracy), results[0])), style="dim"))


def _step_cells(result: Result, *, accurate: bool, counted: bool) -> list[list[str]]:
    """The cells behind a model's name, a list for every step."""
    steps = result.accuracy.steps if result.accuracy else ()
    costs = result.flops.steps if result.flops else ()
    rows = []
    for index in range(max(len(steps), len(costs))):
        cells = [str(index + 1)]
        if accurate and index < len(steps):
            s = steps[index]
            cells += [percent(s.top1), interval(s.top1), percent(s.top5), f"{s.nll.value:.3f}", percent(s.ece)]
        elif accurate:
            cells += [""] * 5
        cells.append(macs_text(costs[index].macs if costs else steps[index].macs))
        if counted:
            last = result.flops and index == len(costs) - 1
            cells.append(macs_text(result.flops.paper_macs.value) if last and result.flops and result.flops.paper_macs else "")
        rows.append(cells)
    return rows


def _footnote(result: Result) -> str:
    data = result.data
    size = f"{data.image_size[0]} x {data.image_size[1]}"
    if result.accuracy:
        top1 = result.accuracy.top1
        sources = f" of {top1.groups:,} sources (resampled for the intervals)" if top1.groups != top1.n else " (Wilson intervals)"
        line = f"{data.name} {data.split}: {top1.n:,} images{sources}, {size} px."
        if data.skipped:
            line += f" {data.skipped} unreadable image{'' if data.skipped == 1 else 's'} skipped."
    else:
        line = f"{data.name}: {size} px, {data.classes} classes."
        if result.flops and result.flops.images == "noise":
            line += " Counted on images of noise, without the data."
    return f"{line} One multiply-accumulate is one MAC; FLOPs are two times that."


def print_comparison(comparison: Comparison | None, results: Sequence[Result], console: Console) -> None:
    """A line for every pair of models, each first-named against the later ones."""
    if comparison is None:
        return
    names = [result.model.name for result in results]
    macs = {result.model.name: result.flops.macs.mean for result in results if result.flops}
    for pair in comparison.pairs:
        if names.index(pair.a) < names.index(pair.b):
            console.print(Text(pair_text(pair, macs.get(pair.a), macs.get(pair.b))))


def pair_text(pair: Pair, macs_a: float | None, macs_b: float | None) -> str:
    """`a` held against `b` in a sentence."""
    verdict = "significantly worse" if pair.p < 0.05 else "not significantly worse"
    p = f"p = {pair.p:.3f}" if pair.p >= 0.001 else "p < 0.001"
    text = (
        f"{pair.a} against {pair.b}: {100 * pair.difference:+.2f} points ({100 * pair.low:+.2f} to {100 * pair.high:+.2f}), "
        f"{verdict} (one-sided {p})"
    )
    return text + (f", at {macs_a / macs_b:.3g} times its MACs" if macs_a and macs_b else "")


def comparison_json(results: Sequence[Result], comparison: Comparison | None) -> str:
    """What `run --json` prints: all results, and the comparison where there are several."""
    content = {
        "results": [json.loads(result.to_json()) for result in results],
        "comparison": json.loads(comparison.to_json()) if comparison else None,
    }
    return json.dumps(content, indent=2)


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
    lines += ["```", f"pip install {config.plugin}", run_command(card, card.name), "```", ""]
    lines += _numbers(result) if result else [f"Not measured yet: `{run_command(card, card.name)} --update-card`.", ""]
    lines += ["## How it was made", "", *_made(card), ""]
    lines += ["## Settings", "", "| setting | value |", "| --- | --- |"]
    lines += [f"| {key} | {_cell(value)} |" for key, value in config.config.items()]
    lines += ["", "## Limits", "", *_limits(card), ""]
    return "\n".join(lines)


def run_command(card: Card, argument: str) -> str:
    """What measures a card, named by `argument`, on data like those it was trained on."""
    data = card.config.data
    sets = [word for key, value in data.settings.items() for word in ("--set", f"data.{key}={value}")]
    return shlex.join(["glimpsezoo", "run", argument, "--data", data.name, *sets])


def _metadata(card: Card, result: Result | None) -> list[str]:
    """Model-card metadata of the Hub (YAML)."""
    config = card.config
    lines = [f"license: {config.license}", "library_name: glimpsezoo", "pipeline_tag: image-classification"]
    lines += ["tags:", "- glimpsezoo", f"- {json.dumps(config.model)}", "datasets:", f"- {json.dumps(config.data.name)}"]
    lines += ["metrics:", "- accuracy"]
    if result and result.accuracy:
        lines += ["model-index:", f"- name: {json.dumps(config.name)}", "  results:", "  - task:", "      type: image-classification"]
        lines += ["    dataset:", f"      name: {json.dumps(result.data.name)}", f"      type: {json.dumps(result.data.name)}"]
        lines += [f"      split: {result.data.split}", "    metrics:", "    - type: accuracy", f"      value: {result.accuracy.top1.value}"]
    return lines


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
                macs_text(s.macs),
            ]
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    elif result.flops:
        lines += [f"It takes {macs_text(result.flops.macs.mean)} MACs an image.", ""]
    if result.flops and result.flops.paper_macs:
        paper = result.flops.paper_macs
        lines += [f"The paper's convention (`{paper.convention}`) counts {macs_text(paper.value)} MACs for all steps.", ""]
    if result.flops:
        lines += [f"Ran and not counted as MACs: {', '.join(result.flops.uncounted) or 'nothing'}.", ""]
    lines += [_footnote(result), "", "Measured by", "", "```", result.run.command, "```", ""]
    env = result.environment
    return [
        *lines,
        f"on {env.platform}, {env.device}, torch {env.packages.get('torch', '?')}. The rows, one an image, are in `{ROWS}`.",
        "",
    ]


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
    return [
        "Trained by",
        "",
        "```",
        str(trained["command"]),
        "```",
        "",
        f"in {trained['minutes']} minutes ({trained['machine']}, torch {trained['torch']}); the curve is in `training.jsonl`, "
        "the recipe in `config.json`. No choice was made on the test split.",
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
