"""Where results are: the folders that names of runs and cards refer to. Imports no torch, so that a wrong name is answered at once."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.zoo.card_config import CONFIG
from glimpsezoo.zoo.cards import RESULT, find_card

GRIDS = "grid*.json"  # what a grid, or a shard of it, leaves in its folder


def result_folders(names: Sequence[str]) -> tuple[list[Path], list[str]]:
    """The folders with results that these names refer to, each once, and the names that hold none (runs/train, of runs/*).

    Raises `GlimpseZooError` for a name that is neither a run nor a measured card.
    """
    if not names:
        raise GlimpseZooError("expected a run or a card, got none: name folders in runs/, or cards ('glimpsezoo list cards')")
    others = [name for name in names if _holds_no_run(Path(name))]
    if len(others) == len(set(names)):
        others = []  # if no name has results, report the first as an error
    return list(dict.fromkeys(folder.resolve() for name in names if name not in others for folder in _folders(name))), others


def _holds_no_run(path: Path) -> bool:
    """Whether an existing path is neither a run nor a card. A pattern such as runs/* includes such paths (runs/train)."""
    if path.name == RESULT or (path / CONFIG).is_file() or (path / RESULT).is_file():
        return False
    return path.exists() and not any(_results_below(path))


def _results_below(path: Path) -> Iterator[Path]:
    """Every result.json of a run's folder, or of all cells of a grid's."""
    return path.glob(f"*/*/{RESULT}" if any(path.glob(GRIDS)) else f"*/{RESULT}")


def _folders(name: str) -> list[Path]:
    """The folders with results that a name refers to."""
    path = Path(name)
    if path.is_file():
        path = path.parent if path.name == RESULT else path
    if (path / RESULT).is_file():
        return [path]
    found = sorted(each.parent for each in _results_below(path)) if path.is_dir() else []
    if found:
        return found
    card = find_card(name)
    if card is None:
        raise GlimpseZooError(
            f"expected a folder with {RESULT}, or a card, got {name!r}, which has none: measure it with 'glimpsezoo run', and name the "
            "folder of its results"
        )
    if not (card.folder / RESULT).is_file():
        raise GlimpseZooError(f"expected a measured card, got {name!r} without {RESULT}: glimpsezoo run {name} --update-card")
    return [card.folder]
