"""What a shell completes in the place of a name. Everything comes from the plugins' specs and the cards, without torch."""

import re
from collections.abc import Callable, Iterable

import click
from click.shell_completion import CompletionItem

_PLAIN = re.compile(r"[\w.,:@/+=-]*")  # a shell puts a name into the command line as it is, where it might be a program: $(...)
Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _completing(known: Callable[[], Iterable[str]], *, files: bool = False, several: bool = False) -> Complete:
    """A completion by names. files: paths, too, if no name fits. several: names are separated by commas, and the last one is completed."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        before, comma, last = incomplete.rpartition(",") if several else ("", "", incomplete)
        taken = set(before.split(","))
        names = (name for name in dict.fromkeys(known()) if name.startswith(last) and name not in taken and _PLAIN.fullmatch(name))
        found = [CompletionItem(f"{before}{comma}{name}") for name in names]
        return [CompletionItem(incomplete, type="file"), *found] if files else found

    return complete


def _listed(*wanted: str) -> Iterable[str]:
    """The names of these kinds, as `list` shows them; a prefix without what follows it."""
    from glimpsezoo.workflows.listing import rows_of

    for kind in wanted:
        yield from (row["name"].removesuffix("NAME") for row in rows_of(kind, "*")[kind])


def _kinds() -> Iterable[str]:
    from glimpsezoo.workflows.listing import KINDS

    return KINDS


def _measures() -> Iterable[str]:
    from glimpsezoo.zoo.early import condition_names, measure_names

    return [*measure_names(), *condition_names()]


def of_the_kind(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The names of the kind that `list` was given before."""
    kind = str(context.params.get("kind"))
    return _completing(lambda: _listed(kind))(context, parameter, incomplete) if kind in set(_kinds()) else []


kinds = _completing(_kinds)
models = _completing(lambda: _listed("models", "cards"), files=True)
models_and_recipes = _completing(lambda: _listed("models", "recipes"))
cards = _completing(lambda: _listed("cards"), files=True)
anything = _completing(lambda: _listed("models", "data", "cards"), files=True)
data = _completing(lambda: _listed("data"))
recipes = _completing(lambda: _listed("recipes"), files=True)
loggers = _completing(lambda: _listed("loggers"))
importers = _completing(lambda: _listed("importers"))
runs = _completing(lambda: _listed("cards", "papers"), files=True)
checkpoints = _completing(lambda: ["none", "timm", *_listed("cards")], files=True)
measures = _completing(_measures, several=True)
conditions = _completing(lambda: _listed("corruptions", "attacks"))
