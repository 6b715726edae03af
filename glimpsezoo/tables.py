"""What people read of results: numbers with their units, the table of a run, and its comparisons in words."""

import json
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from glimpsezoo.errors import counted
from glimpsezoo.records import AccuracyStep, Attack, Comparison, Estimate, Pair, Result

INLINE_ATTACKS = 2  # more of them have a table of their own
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
    robust = any(result.corruptions or result.attacks for result in results)
    columns = _robust_columns(results) if robust else _plain_columns(results)
    table = Table(box=None, pad_edge=False, show_edge=False, header_style="bold")
    table.add_column("model", style="cyan", overflow="fold", max_width=20 if robust else 30)
    for heading in ("step", *columns):
        table.add_column(heading, justify="right", no_wrap=True)
    for result in results:
        steps = _steps(result)
        for step in range(steps):
            cells = [cell(result, step) for cell in columns.values()]
            table.add_row("" if step else Text(display_name(result)), str(step + 1), *cells)
        if not steps:
            table.add_row(Text(display_name(result)), "failed" if result.errors else "-")  # '-': measured at no single step
    console.print(table)
    if len(_labels(results)) > INLINE_ATTACKS:
        console.print(_attack_table(results))
    console.print(Text(footnote(next((result for result in results if result.accuracy), results[0])), style="dim"))
    for line in _robust_footnotes(results):
        console.print(Text(line, style="dim"))


def _steps(result: Result) -> int:
    """How many steps the result has numbers of, whichever of its sections they stand in."""
    found = [each.steps for each in (result.accuracy, result.flops) if each]
    robust = [each.by_step for each in (result.corruptions, *result.attacks) if each]
    return max(map(len, [*found, *robust]), default=0)


Cell = Callable[[Result, int], str]  # of a result at a step, counted from 0


def _plain_columns(results: Sequence[Result]) -> dict[str, Cell]:
    """Accuracy in detail, and cost."""
    columns: dict[str, Cell] = {}
    if any(result.accuracy for result in results):
        columns = {
            "top-1 %": _of_step(lambda step: percent(step.top1)),
            "95 % interval": _of_step(lambda step: interval(step.top1)),
            "top-5 %": _of_step(lambda step: percent(step.top5)),
            "NLL": _of_step(lambda step: f"{step.nll.value:.3f}"),
            "ECE %": _of_step(lambda step: percent(step.ece)),
        }
    columns["MACs/image"] = _macs
    if any(result.flops and result.flops.paper_macs for result in results):
        columns["paper's MACs"] = _paper_macs
    return columns


def _robust_columns(results: Sequence[Result]) -> dict[str, Cell]:
    """Accuracy as it is, under corruptions and under every attack, with the verdict on the attacks, and cost."""
    columns: dict[str, Cell] = {}
    if any(result.accuracy for result in results):
        columns["top-1 % (95 %)"] = _of_step(lambda step: with_interval(step.top1))
    if any(result.corruptions for result in results):
        columns["corrupted %"] = lambda result, step: with_interval(result.corruptions.by_step[step]) if result.corruptions else ""
    labels = _labels(results)
    for label in labels if len(labels) <= INLINE_ATTACKS else labels[:1]:
        columns[f"{label} %"] = _attacked(results, label)
    if any(result.masking for result in results):
        columns["masking"] = lambda result, step: "" if step or not result.masking else result.masking.verdict
    if any(result.flops or result.accuracy for result in results):
        columns["MACs"] = _macs
    return columns


def attack_label(attack: Attack, results: Sequence[Result]) -> str:
    """An attack's name, with its budget where one of the results has several of that name."""
    if all(sum(other.name == attack.name for other in result.attacks) <= 1 for result in results):
        return attack.name
    return f"{attack.name} {eps_text(attack.eps)}, {counted(attack.steps, 'step')}"


def _labels(results: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(attack_label(attack, results) for result in results for attack in result.attacks))


def _attack_table(results: Sequence[Result]) -> Table:
    """A row for every attack, a column for every model: accuracy at the last step. What is slowed down keeps its label."""
    table = Table(box=None, pad_edge=False, show_edge=False, header_style="bold")
    table.add_column("attack %", style="cyan", no_wrap=True)
    for result in results:
        table.add_column(Text(result.model.name), justify="right", overflow="fold", min_width=14)
    for label in _labels(results):
        table.add_row(label, *(_attacked(results, label)(result, -1) for result in results))
    verdicts = [result.masking.verdict if result.masking else "" for result in results]
    judged = dict.fromkeys(attack_label(result.judged, results) for result in results if result.judged)
    table.add_row(f"masking of {', '.join(judged)}" if judged else "masking", *verdicts)
    return table


def _attacked(results: Sequence[Result], label: str) -> Cell:
    def cell(result: Result, step: int) -> str:
        attack = next((attack for attack in result.attacks if attack_label(attack, results) == label), None)
        return with_interval(attack.by_step[step], 0) if attack else ""

    return cell


def _of_step(text: Callable[[AccuracyStep], str]) -> Cell:
    def cell(result: Result, step: int) -> str:
        return text(result.accuracy.steps[step]) if result.accuracy else ""

    return cell


def _macs(result: Result, step: int) -> str:
    if result.flops:
        return macs_text(result.flops.steps[step].macs)
    return macs_text(result.accuracy.steps[step].macs) if result.accuracy else ""


def _paper_macs(result: Result, step: int) -> str:
    """Beside the last step, whose cost it is."""
    flops = result.flops
    return macs_text(flops.paper_macs.value) if flops and flops.paper_macs and step == len(flops.steps) - 1 else ""


def _robust_footnotes(results: Sequence[Result]) -> list[str]:
    """What the columns of robustness are, and what each model's anytime curve is worth."""
    lines = []
    first = next((result.corruptions for result in results if result.corruptions), None)
    if first:
        what = counted(len(first.table), "corruption")
        constants = f"; constants for {first.preset} px" if first.preset.isdecimal() else ""
        lines.append(f"corrupted: {first.n} images under {what} ({first.implementation}{constants}).")
    lines += _attack_lines(results)
    if any(result.masking and result.masking.verdict != "ok" for result in results):
        doubted = [
            f"{result.model.name} ({result.masking.verdict})" for result in results if result.masking and result.masking.verdict != "ok"
        ]
        lines.append(f"masking doubts the attacked accuracy of {', '.join(doubted)}; result.json says why.")
    lines += [anytime_text(result) for result in results if result.anytime and len(result.anytime.curve) > 1]
    papers = [(result.model.name, result.flops.paper_macs) for result in results if result.flops and result.flops.paper_macs]
    if lines and papers:
        lines.append(
            "The papers' conventions count " + ", ".join(f"{macs_text(cost.value)} MACs for {name}" for name, cost in papers) + "."
        )
    return lines


def _attack_lines(results: Sequence[Result]) -> list[str]:
    """What each attack was; by model, where it was not the same for all."""
    lines = []
    for label in _labels(results):
        texts: dict[str, list[str]] = {}
        for result in results:
            for attack in result.attacks:
                if attack_label(attack, results) == label:
                    texts.setdefault(attack_text(attack), []).append(result.model.name)
        for text, models in texts.items():
            whose = f" of {', '.join(models)}" if len(texts) > 1 else ""
            lines.append(f"{label}{whose}: {text}.")
    return lines


def eps_text(eps: float) -> str:
    """As it is usually written: in 255ths where it is so many.

    >>> eps_text(8 / 255), eps_text(0.5)
    ('8/255', '0.5')
    """
    levels = eps * 255
    return f"{round(levels)}/255" if levels >= 0.5 and abs(levels - round(levels)) < 1e-6 else f"{eps:g}"


def attack_text(attack: Attack) -> str:
    """An attack's threat model in a few words."""
    parts = [f"{attack.norm} {eps_text(attack.eps)} in {attack.space}", counted(attack.steps, "step"), f"{attack.n} images"]
    if attack.restarts > 1:
        parts.append(f"{attack.restarts} restarts")
    if attack.eot > 1:
        parts.append(f"{attack.eot} samples a gradient")
    if attack.evaluations > 1:
        parts.append(f"mean of {attack.evaluations} evaluations")
    parts += [f"aimed at {attack.target}"] if attack.target != "final" else []
    parts += ["looks frozen"] if attack.path == "frozen" else []
    parts += ["not what masking judges"] if attack.space != "pixels" else []
    if attack.exit_rule:
        before, after = attack.clean, attack
        parts.append(
            f"steps {before.steps_mean:.2f} -> {after.steps_mean:.2f}, MACs {macs_text(before.macs_mean)} -> {macs_text(after.macs_mean)} "
            f"({attack.exit_rule.rule} {attack.exit_rule.threshold:.3g})"
        )
    return ", ".join(parts)


def anytime_text(result: Result) -> str:
    """What a model's anytime curve is worth, in a sentence."""
    anytime = result.anytime
    assert anytime is not None
    first, last = anytime.curve[0], anytime.curve[-1]
    text = (
        f"{result.model.name} with {first.rule} exits: {percent(first.top1)} % at {macs_text(first.macs_mean)} MACs to "
        f"{percent(last.top1)} % at {macs_text(last.macs_mean)}, mean {100 * anytime.area:.1f} %"
    )
    equal = anytime.equal_accuracy
    if equal is None:
        return text + "."
    if equal.macs_ratio is None:
        return text + f"; no point of the curve has the accuracy of {equal.baseline}."
    return text + f"; as accurate as {equal.baseline} at {equal.macs_ratio:.3g} times its MACs."


def with_interval(estimate: Estimate, digits: int = 1) -> str:
    """Percent with the 95 % interval behind it, whose ends have `digits` decimals."""
    return f"{percent(estimate)} ({100 * estimate.low:.{digits}f}-{100 * estimate.high:.{digits}f})"


def footnote(result: Result) -> str:
    """What was measured, in a line or two."""
    data = result.data
    size = f"{data.image_size[0]} x {data.image_size[1]}"
    if result.accuracy:
        top1 = result.accuracy.top1
        sources = f" of {top1.groups:,} sources (resampled for the intervals)" if top1.groups != top1.n else " (Wilson intervals)"
        line = f"{data.name} {data.split}: {top1.n:,} images{sources}, {size} px."
        if data.skipped:
            line += f" {counted(data.skipped, 'unreadable image')} skipped."
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
    p = f"p = {pair.p:.3f}" if pair.p >= 0.001 else "p < 0.001"
    worse = f"{'significantly' if pair.p < 0.05 else 'not significantly'} worse (one-sided {p})"
    text = (
        f"{pair.a} against {pair.b}: {100 * pair.difference:+.2f} points ({100 * pair.low:+.2f} to {100 * pair.high:+.2f}), "
        f"{'better' if pair.low > 0 else worse}"
    )
    return text + (f", at {macs_a / macs_b:.3g} times its MACs" if macs_a and macs_b else "")


def comparison_json(results: Sequence[Result], comparison: Comparison | None) -> str:
    """What `run --json` prints: all results, and the comparison where there are several."""
    content = {
        "results": [json.loads(result.to_json()) for result in results],
        "comparison": json.loads(comparison.to_json()) if comparison else None,
    }
    return json.dumps(content, indent=2)
