"""`doctor`: what is installed and what works."""

import json

import click

from glimpsezoo.commands import options


@click.command()
@options.as_json
@options.debug
def doctor(as_json: bool, debug: bool) -> int:
    """Say what is installed and what works, for bug reports.

    A line each for versions, extras, plugins, devices, threads, the Hub and the disk. The exit status is 1 if something that is installed
    does not work. Tokens are not shown.

    \b
    Example:
      glimpsezoo doctor
    """
    from rich.markup import escape

    from glimpsezoo.workflows.doctoring import examine

    lines = []
    for line in examine():
        lines.append(line)
        if not as_json:
            text = escape(f"{line.subject}: {line.found}")
            options.stdout().print(f"[red]{text}[/red]" if line.wrong else text, soft_wrap=True, emoji=False)
    if as_json:
        options.tell(json.dumps([line._asdict() for line in lines], indent=2))
    return 1 if any(line.wrong for line in lines) else 0
