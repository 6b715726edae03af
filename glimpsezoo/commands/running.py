"""`run`: measure models on data, and print one table."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from glimpsezoo import ranks
from glimpsezoo.commands import configuring, forecasting, gridding, names, options, progress
from glimpsezoo.errors import GlimpseZooError

if TYPE_CHECKING:
    from glimpsezoo.run.answers import Question
    from glimpsezoo.run.request import RunRequest
    from glimpsezoo.run.work import RunWork


class MeasureOption(click.Option):
    """Its help names the measures that are registered."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        from glimpsezoo.specs import MeasureSpec
        from glimpsezoo.zoo.plugins import registry

        specs = [spec for spec in registry().all(MeasureSpec) if not spec.follows]
        others = [spec.name for spec in specs if not spec.default]
        self.help = (
            f"{', '.join(spec.name for spec in specs)}; a corruption (fog, fog:3) or an attack (pgd, pgd:4/255, or pgd:4/255:100 with so "
            f"many steps); quick, robustness or full.  [default: all but {' and '.join(others)}]"
        )
        return super().get_help_record(ctx)


@click.command()
@click.argument("models", nargs=-1, metavar="MODEL...", shell_complete=names.models)
@options.together(
    configuring.config_option,
    gridding.grid_options,
    options.data,
    options.data_dir,
    click.option("--split", default="test", show_default=True, metavar="NAME", help="Which split is measured."),
    click.option("--limit", type=int, metavar="N", help="Measure a fixed stratified choice of N images."),
    click.option("--batch-size", default="auto", show_default=True, metavar="N", help="Images at a time; changes no result."),
    options.device,
    click.option("--precision", default="float32", show_default=True, metavar="LIST", help="float32, bf16, or both beside each other."),
    click.option("--compile", is_flag=True, help="Compile the models (torch.compile, with frozen weights)."),
    options.seed,
    options.workers,
    click.option(
        "--engine",
        default="auto",
        show_default=True,
        metavar="NAME",
        help="Who does the work: threads of this process, processes:N, or ray; auto takes what should be done first.",
    ),
    click.option("--ray-address", metavar="ADDRESS", help="The Ray cluster of --engine ray.  [default: this machine]"),
    options.settings,
    options.checkpoint,
    click.option("--measure", cls=MeasureOption, metavar="LIST", shell_complete=names.measures),
    click.option("--corrupted-dir", metavar="DIR", help="Published corrupted images: folders corruption/severity/class/image."),
    click.option(
        "--on-bad-image", type=click.Choice(["fail", "skip"]), default="fail", show_default=True, help="What an unreadable image does."
    ),
    options.output,
    options.store,
    options.force,
    options.fresh,
    click.option("--update-card", is_flag=True, help="Write the result into the card's folder too, as its evidence."),
    forecasting.dry_run,
    options.as_json,
    options.debug,
)
def run(models: tuple[str, ...], **given: Any) -> int:
    """Measure accuracy, cost and robustness of models on --data.

    Every number is there for every step, for early exits, under corruptions and under attacks. A MODEL is a card (mgnet.digits), a
    card's folder, or a plugin's model (mgnet), of which the card for --data is taken. It may appear several times, with settings of its
    own (mgnet@glimpses=2). A card is measured on the data that it was trained on, in their size and settings; cards of several data need
    --data. Accuracies have 95 % intervals; several models are compared image by image. Finished units (1,000 images of one model under one
    condition) are kept: stopped at any time, the same command goes on from there.

    The table goes to standard output, the full results to runs/, or --output, with a command.toml from which --config makes the same run
    again. Exit status: 0 done, 1 some units failed, 2 the command or its input is wrong.

    \b
    Examples:
      glimpsezoo run mgnet
      glimpsezoo run mgnet cnn4 --data digits --measure quick
      glimpsezoo run mgnet cnn4 ranzato pyramid-m3
      glimpsezoo run mgnet@glimpses=2 mgnet
      glimpsezoo run mgnet --measure accuracy,fog,pgd:4/255 --set pgd.steps=100
      glimpsezoo run mgnet --data imagenet100 --set backbone=resnet50 --checkpoint none --measure quick
      glimpsezoo run mgnet --dry-run
      glimpsezoo run --grid grid.toml --shard 3/16
    """
    if ranks.here().world == 1:
        return _run(models, given)
    from glimpsezoo.run.engines.torchrun import dismiss, serve

    if not ranks.speaks():
        serve()
        return 0
    try:
        return _run(models, given)
    finally:
        dismiss()


def _run(models: tuple[str, ...], given: dict[str, Any]) -> int:
    """The command, in the process that prints and writes."""
    from glimpsezoo.run.answers import question_of, recall
    from glimpsezoo.zoo.early import check_names

    if given["grid"] is not None:
        return gridding.run_grid(models, given, _request)
    if given["shard"] is not None:
        raise GlimpseZooError(f"--shard expects --grid FILE, got {given['shard']!r} without a grid: name the file, or leave --shard out")
    models, given["sets"] = configuring.merged(models, given["sets"])
    given["checkpoint"] = options.as_card(given["checkpoint"], models, given["data"])
    question = question_of({"models": models, **given}, options.screen())
    if answer := recall(question):
        for line in answer.said:
            options.say(line)
        options.tell(answer.as_json()) if given["as_json"] else options.tell_drawn(answer.shown)
        return 0
    measures = _parts(given["measure"])
    check_names(models, data=given["data"], checkpoint=given["checkpoint"], sets=given["sets"], measures=measures or ())
    from glimpsezoo.evaluation.environment import keep_freed_memory
    from glimpsezoo.run.prepare import prepare

    keep_freed_memory()
    work = prepare(_request(models, given))
    if given["dry_run"]:
        from glimpsezoo.run.forecast import forecast

        forecasting.print_run(forecast(work), as_json=given["as_json"])
        return 0
    return _measure(work, question, as_json=given["as_json"])


def _measure(work: "RunWork", question: "Question | None", *, as_json: bool) -> int:
    """Do the run, print what came of it, and return the exit status."""
    from glimpsezoo.reports.paired import print_comparison
    from glimpsezoo.reports.table import print_results
    from glimpsezoo.run.answers import combined, remember
    from glimpsezoo.run.finishing import finish

    said: list[str] = []

    def say_what_comes() -> None:
        options.say(work.summary())
        said.extend([*work.warnings, *work.said])
        for note in said:
            options.say(note)

    progress.follow_work(work, say_what_comes)
    outcome = finish(work)
    for note in (note for note in work.said if note not in said):
        options.say(note)
    options.say(outcome.summary)
    console = options.stdout()
    with console.capture() as captured:
        print_results(outcome.results, console)
        print_comparison(outcome.comparison, outcome.results, console)
    whole = combined([result.to_json() for result in outcome.results], outcome.comparison and outcome.comparison.to_json())
    options.tell(whole) if as_json else options.tell_drawn(captured.get())
    remember(question, work, outcome, captured.get())
    return 0 if all(result.run.status == "done" for result in outcome.results) else 1


def _parts(text: str | None) -> tuple[str, ...] | None:
    """The items of a list."""
    return None if text is None else tuple(part.strip() for part in text.split(","))


def _request(models: tuple[str, ...], given: dict[str, Any]) -> "RunRequest":
    from glimpsezoo.run.request import RunRequest

    said = configuring.given_options(models, given["sets"])
    return RunRequest(
        models=models,
        data=given["data"],
        data_dir=given["data_dir"],
        split=given["split"],
        limit=given["limit"],
        batch_size=given["batch_size"],
        device=options.pick_device(given["device"]),
        precisions=_parts(given["precision"]) or (),
        compile=given["compile"],
        seed=given["seed"],
        workers=given["workers"],
        sets=tuple(given["sets"]),
        checkpoint=given["checkpoint"],
        measures=_parts(given["measure"]),
        corrupted_dir=given["corrupted_dir"],
        on_bad_image=given["on_bad_image"],
        output=Path(given["output"]) if given["output"] else None,
        store=given["store"] or None,
        force=given["force"],
        fresh=given["fresh"],
        update_card=given["update_card"],
        engine=given["engine"],
        ray_address=given["ray_address"],
        dry_run=given["dry_run"],
        options={key: value for key, value in said.items() if key not in configuring.OUTCOME},
        words=configuring.words_of("run", said),
    )
