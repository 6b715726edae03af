"""What is installed and available, as rows. Imports neither torch nor numpy, and pydantic only for cards and recipes."""

import fnmatch
from collections.abc import Iterator
from pathlib import Path

from glimpsezoo.errors import GlimpseZooError, did_you_mean
from glimpsezoo.specs import ModelSpec, Spec
from glimpsezoo.zoo.plugins import HOOKS, registry

KINDS = ("models", "cards", "data", "recipes", "corruptions", "attacks", "exit-rules", "policies", "importers", "loggers", "papers")


def rows_of(kind: str | None, pattern: str) -> dict[str, list[dict[str, str]]]:
    """Kind -> a row (name, description, from) for each name that matches the pattern; all kinds if `kind` is None.

    Raises `GlimpseZooError` for an unknown kind, and for a pattern other than '*' that matches no name.
    """
    if kind is not None and kind not in KINDS:
        raise GlimpseZooError(f"expected one of {', '.join(KINDS)}, got {kind!r}: {did_you_mean(kind, KINDS)}")
    every = {k: list(_rows(k)) for k in ([kind] if kind else KINDS)}
    found = {k: [row for row in rows if fnmatch.fnmatchcase(row["name"], pattern)] for k, rows in every.items()}
    if pattern != "*" and not any(found.values()):
        known = [row["name"] for rows in every.values() for row in rows]
        raise GlimpseZooError(f"expected a pattern that matches a name, got {pattern!r}: {did_you_mean(pattern, known)}")
    return found


def _rows(kind: str) -> Iterator[dict[str, str]]:
    if kind == "cards":
        from glimpsezoo.zoo.cards import card_paths

        yield from (_card_row(name, folder) for name, folder in card_paths().items())
    elif kind == "recipes":
        from glimpsezoo.zoo.recipes import recipe_names, recipe_title

        for spec in registry().all(ModelSpec):
            for name in recipe_names(spec):
                yield {"name": name, "description": recipe_title(spec, name) or f"trains {spec.name}", "from": _from(spec)}
    else:
        hook = f"register_{'datasets' if kind == 'data' else kind.replace('-', '_')}"
        for spec in registry().all(HOOKS[hook]):
            yield {"name": spec.title, "description": spec.description, "from": _from(spec)}


def _from(spec: Spec) -> str:
    return spec.provenance.distribution if spec.provenance else ""


def _card_row(name: str, folder: Path) -> dict[str, str]:
    """A card as a row; a broken card is a row with its error."""
    from glimpsezoo.zoo.cards import Card

    try:
        config = Card.read(folder).config
    except GlimpseZooError as error:
        return {"name": name, "description": f"BROKEN: {error}", "from": ""}
    hub = f"weights on the Hub ({config.hub})" if config.hub else "no weights"
    weights = f"{config.weights.bytes / 1e6:.2f} MB" if config.weights else hub
    return {"name": name, "description": f"{config.model} trained on {config.data.name}, {weights}", "from": config.plugin}
