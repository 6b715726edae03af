"""`check`: the conformance suite for a model or a card."""

import json

import click

from glimpsezoo.commands import names, options


@click.command()
@click.argument("name", shell_complete=names.models)
@click.option(
    "--data", metavar="NAME", shell_complete=names.data, help="Check on some of its calibration images.  [default: generated images]"
)
@options.together(options.data_dir, options.settings, options.seed, options.as_json, options.debug)
def check(name: str, data: str | None, data_dir: str | None, sets: tuple[str, ...], seed: int, as_json: bool, debug: bool) -> int:
    """Check that a model or a card conforms to the protocol.

    Prints a line per rule of the conformance suite, with the numbers: ok, FAILED, refused (for example an image size that the model does
    not accept) or skipped. The exit status is 1 if a rule failed. A model without a card is checked with untrained weights.

    \b
    Examples:
      glimpsezoo check mgnet
      glimpsezoo check pyramid-m3 --set decide=mode
      glimpsezoo check mgnet.digits --data digits
    """
    from glimpsezoo.zoo.early import check_names

    check_names([name], data=data, sets=sets)
    from glimpsezoo.workflows.checking import findings_of

    findings = []
    for finding in findings_of(name, data, sets, data_dir=data_dir, seed=seed):
        findings.append(finding)
        if not as_json:
            options.tell(str(finding))
    failed = [finding.rule for finding in findings if not finding.passed]
    if as_json:
        options.tell(json.dumps({"name": name, "passed": not failed, "findings": [finding.to_json() for finding in findings]}, indent=2))
    else:
        options.tell(f"{name} breaks {len(failed)} of {len(findings)} rules: {', '.join(failed)}" if failed else f"{name} conforms")
    return 1 if failed else 0
