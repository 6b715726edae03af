"""What people read of results: numbers with their units, the table of a run, and its comparisons in words."""

import json
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from glimpsezoo.errors import counted
from glimpsezoo.records import AccuracyStep, Attack, Comparison, Corruptions, EqualAccuracy, Estimate, Pair, Result

INLINE_ATTACKS = 2  # more of them have a table of their own
TRIVIAL_POLICIES = ("random", "centre", "scan")


def macs_text(macs: float, *, at_least: bool = False) -> str:
    """A number of MACs with a unit. at_least: whether it is a lower bound.

    >>> macs_text(10_619_085), macs_text(1.3432e9), macs_text(900, at_least=True)
    ('10.619 M', '1.343 G', '>= 900')
    """
    if at_least:
        return f">= {macs_text(macs)}"
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if macs >= size:
            return f"{macs / size:.3f} {unit}"
    return f"{macs:.0f}"


def cost_text(result: Result, macs: float) -> str:
    """A number of MACs of a result: with '>=' before it where operations without a formula ran."""
    return macs_text(macs, at_least=result.at_least)


def percent(estimate: Estimate, digits: int = 1) -> str:
    return f"{100 * estimate.value:.{digits}f}"


def interval(estimate: Estimate, digits: int = 1) -> str:
    return f"{100 * estimate.low:.{digits}f} to {100 * estimate.high:.{digits}f}"


def display_name(result: Result) -> str:
    """The model's name, and what keeps its numbers from being those of a trained model, on its own data, that looks where it has learned
    to.
    """
    policy = [result.model.policy] if result.model.policy in TRIVIAL_POLICIES else []
    marks = policy + ([] if result.model.checkpoint else ["untrained"])
    trained = result.model.trained_on
    if trained and result.departure:
        height, width = trained.image_size
        if trained.data != result.data.name:
            marks += [f"trained on {trained.data}"]
        elif trained.image_size != result.data.image_size:
            marks += [f"trained at {height} px" if height == width else f"trained at {height} x {width} px"]
        else:
            marks += ["other data settings"]
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
    at_least = [f"{at_least_text(result)}." for result in results if result.at_least]
    for line in [*footnotes(results), *_robust_footnotes(results), *at_least]:
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
    labels, judged = _labels(results), judged_name(results, lambda attack: attack_label(attack, results))
    for label in labels if len(labels) <= INLINE_ATTACKS else [judged]:
        columns[f"{label} %"] = _attacked(results, label)
        if label == judged:  # beside the attack that it is about, and no other
            columns["masking"] = _judged(results, label)
    if any(result.flops or result.accuracy for result in results):
        columns["MACs"] = _macs
    return columns


def attack_label(attack: Attack, results: Sequence[Result]) -> str:
    """An attack's name, with its budget where one of the results has several of that name."""
    if all(sum(other.name == attack.name for other in result.attacks) <= 1 for result in results):
        return attack.name
    return f"{attack.name} {eps_text(attack.eps)}, {counted(attack.steps, 'step')}"


def judged_name(results: Sequence[Result], name: Callable[[Attack], str]) -> str:
    """The name, by `name`, of the attack that the verdict on masking is about; of the first one where none was judged; '' without any."""
    judged = [result.judged for result in results if result.judged]
    return next((name(attack) for attack in [*judged, *(attack for result in results for attack in result.attacks)]), "")


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
    judged = judged_name(results, lambda attack: attack_label(attack, results))
    table.add_row(f"masking of {judged}", *(_judged(results, judged)(result, 0) for result in results))
    return table


def _attacked(results: Sequence[Result], label: str) -> Cell:
    def cell(result: Result, step: int) -> str:
        attack = _labelled(result, results, label)
        return with_interval(attack.by_step[step], 0) if attack else ""

    return cell


def _judged(results: Sequence[Result], label: str) -> Cell:
    """The verdict on attacks of this label, beside the first step."""

    def cell(result: Result, step: int) -> str:
        attack = _labelled(result, results, label)
        return result.verdict_on(attack) if attack and not step else ""

    return cell


def _labelled(result: Result, results: Sequence[Result], label: str) -> Attack | None:
    return next((attack for attack in result.attacks if attack_label(attack, results) == label), None)


def _of_step(text: Callable[[AccuracyStep], str]) -> Cell:
    def cell(result: Result, step: int) -> str:
        return text(result.accuracy.steps[step]) if result.accuracy else ""

    return cell


def _macs(result: Result, step: int) -> str:
    section = result.flops or result.accuracy
    return cost_text(result, section.steps[step].macs) if section else ""


def _paper_macs(result: Result, step: int) -> str:
    """Beside the last step, whose cost it is."""
    flops = result.flops
    if flops is None or flops.paper_macs is None or step < len(flops.steps) - 1:
        return ""
    return cost_text(result, flops.paper_macs.value)


def _robust_footnotes(results: Sequence[Result]) -> list[str]:
    """What the columns of robustness are, and what each model's anytime curve is worth."""
    lines = []
    for text, models in _by_text(results, lambda result: corrupted_text(result.corruptions) if result.corruptions else "").items():
        lines.append(f"corrupted{models}: {text}.")
    lines += _attack_lines(results)
    judged = [(result.model.name, result.verdict_on(result.judged)) for result in results if result.judged]
    doubted = [f"{name} ({verdict})" for name, verdict in judged if verdict != "ok"]
    if doubted:
        lines.append(f"masking doubts the attacked accuracy of {', '.join(doubted)}; result.json says why.")
    lines += [anytime_text(result) for result in results if result.anytime and len(result.anytime.exits) > 1]
    papers = [(_paper_macs(result, result.model.steps - 1), result.model.name) for result in results]
    papers = [f"{cost} MACs for {name}" for cost, name in papers if cost]
    if lines and papers:
        lines.append(f"The papers' conventions count {', '.join(papers)}.")
    return lines


def corrupted_text(found: Corruptions) -> str:
    """What the corruptions of a result were."""
    constants = f"; constants for {found.preset} px" if found.preset.isdecimal() else ""
    return f"{found.n} images under {counted(len(found.table), 'corruption')} ({found.implementation}{constants})"


def _by_text(results: Sequence[Result], text: Callable[[Result], str]) -> dict[str, str]:
    """What is said of results, and of which: ' of NAME, NAME', or '' where there is one text for all."""
    found: dict[str, list[str]] = {}
    for result in results:
        if said := text(result):
            found.setdefault(said, []).append(result.model.name)
    return {said: f" of {', '.join(names)}" if len(found) > 1 else "" for said, names in found.items()}


def _attack_lines(results: Sequence[Result]) -> list[str]:
    """What each attack was; by model, where it was not the same for all."""
    lines = []
    for label in _labels(results):

        def said(result: Result, label: str = label) -> str:
            attacks = (attack for attack in result.attacks if attack_label(attack, results) == label)
            return next((attack_text(attack, at_least=result.at_least) for attack in attacks), "")

        lines += [f"{label}{models}: {text}." for text, models in _by_text(results, said).items()]
    return lines


def eps_text(eps: float) -> str:
    """As it is usually written: in 255ths where it is so many.

    >>> eps_text(8 / 255), eps_text(0.5), eps_text(3)
    ('8/255', '0.5', '3')
    """
    levels = eps * 255
    return f"{round(levels)}/255" if eps < 1 and levels >= 0.5 and abs(levels - round(levels)) < 1e-6 else f"{eps:g}"


def attack_text(attack: Attack, *, at_least: bool = False) -> str:
    """An attack's threat model in a few words. at_least: whether its MACs are lower bounds."""
    parts = [f"{attack.norm} {eps_text(attack.eps)} in {attack.space}", counted(attack.steps, "step"), f"{attack.n} images"]
    if attack.restarts > 1:
        parts.append(f"{attack.restarts} restarts")
    if attack.eot > 1:
        parts.append(f"{attack.eot} samples a gradient")
    if attack.evaluations > 1:
        parts.append(f"mean of {attack.evaluations} evaluations")
    parts += [f"aimed at {attack.target}"] if attack.target != "final" else []
    parts += ["looks frozen"] if attack.path == "frozen" else []
    parts += [] if attack.can_be_judged else ["not what masking judges"]
    if attack.exit_rule:
        steps = f"steps {attack.clean.steps_mean:.2f} -> {attack.steps_mean:.2f}"
        macs = " -> ".join(macs_text(each, at_least=at_least) for each in (attack.clean.macs_mean, attack.macs_mean))
        parts.append(f"{steps}, MACs {macs} ({attack.exit_rule.rule} {attack.exit_rule.threshold:.3g})")
    return ", ".join(parts)


def anytime_text(result: Result) -> str:
    """What a model's anytime curve is worth, in a sentence."""
    anytime = result.anytime
    assert anytime is not None
    first, last = anytime.exits[0], anytime.exits[-1]
    cheap, dear = (cost_text(result, point.macs_mean) for point in (first, last))
    text = (
        f"{result.model.name} with {first.rule} exits: {percent(first.top1)} % at {cheap} MACs to "
        f"{percent(last.top1)} % at {dear}, mean {100 * anytime.area:.1f} %"
    )
    return f"{text}; {_equal_text(anytime.equal_accuracy)}." if anytime.equal_accuracy else f"{text}."


def _equal_text(equal: EqualAccuracy) -> str:
    """What the accuracy of the baseline costs, with the interval of that ratio."""
    if equal.missing:
        return f"no ratio to the MACs of {equal.baseline}, for {_no_formula(equal.missing)}"
    reached = equal.reached or 0.0
    if equal.macs_ratio is None:
        said = f" ({100 * reached:.2g} % of the samples reach it)" if reached else ""
        return f"no point of the curve has the accuracy of {equal.baseline}{said}"
    text = f"as accurate as {equal.baseline} at {equal.macs_ratio:.3g} times its MACs"
    if equal.low is None:
        return text
    if equal.high is None:
        return f"{text} ({equal.low:.3g} or more: {100 * (1 - reached):.2g} % of the samples never reach it)"
    return f"{text} ({equal.low:.3g} to {equal.high:.3g})"


def _no_formula(operations: Sequence[str]) -> str:
    """Why costs are not known."""
    return f"{', '.join(operations)} {'has' if len(operations) == 1 else 'have'} no formula"


def at_least_text(result: Result) -> str:
    """Why the MACs of a result are lower bounds."""
    return f"{result.model.name}: MACs are lower bounds (>=), for {_no_formula(result.missing)}"


def with_interval(estimate: Estimate, digits: int = 1) -> str:
    """Percent with the 95 % interval behind it, whose ends have `digits` decimals."""
    return f"{percent(estimate)} ({100 * estimate.low:.{digits}f}-{100 * estimate.high:.{digits}f})"


def footnotes(results: Sequence[Result]) -> list[str]:
    """What was measured, by model where it was not the same for all, and which models were trained on other data."""
    found = _by_text([result for result in results if result.accuracy] or results[:1], measured_text)
    lines = [f"{models.removeprefix(' of ')}: {text}" if models else text for text, models in found.items()]
    lines[-1] += " One multiply-accumulate is one MAC; FLOPs are two times that."
    return lines + [f"{result.departure}." for result in results if result.departure]


def footnote(result: Result) -> str:
    """What was measured of one model, in a line or two."""
    return " ".join(footnotes([result]))


def measured_text(result: Result) -> str:
    """The images that a result is of, and the intervals."""
    data = result.data
    size = f"{data.image_size[0]} x {data.image_size[1]}"
    if result.accuracy:
        top1 = result.accuracy.top1
        sources = f" of {top1.groups:,} sources (resampled for the intervals)" if top1.groups != top1.n else " (Wilson intervals)"
        line = f"{data.name} {data.split}: {top1.n:,} images{sources}, {size} px."
        if data.skipped:
            line += f" {counted(data.skipped, 'unreadable image')} skipped."
        for done, count in data.conversions.items():
            line += f" {counted(count, 'image')} {done}."
    else:
        line = f"{data.name}: {size} px, {data.classes} classes."
        if result.flops and result.flops.images == "noise":
            line += " Counted on images of noise, without the data."
    return line


def print_comparison(comparison: Comparison | None, results: Sequence[Result], console: Console) -> None:
    """A line for every pair of models, each first-named against the later ones."""
    if comparison is None:
        return
    names = [result.model.name for result in results]
    macs = {result.model.name: result.flops.macs.mean for result in results if result.flops and not result.at_least}
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
