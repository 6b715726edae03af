"""Which rows of an ImageNet head belong to the classes of a task."""

from collections import defaultdict
from collections.abc import Sequence

from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

from glimpsezoo import GlimpseZooError


def imagenet_rows(classes: Sequence[str], head: int) -> list[int]:
    """For each class of a task, its row in an ImageNet head of `head` classes (1000, or one of timm's larger sets).

    classes: WordNet ids ('n01440764'), ImageNet's names ('tench, Tinca tinca') or the first synonym ('tench'); case and underscores do
    not matter. Raises `GlimpseZooError` for a head that is not an ImageNet head, for a class that the head does not have or that is
    ambiguous ('crane' is a bird and a machine), and for two names of one class.

    >>> imagenet_rows(("n01443537", "tench"), 1000)
    [1, 0]
    """
    subset = infer_imagenet_subset({"num_classes": head})
    if subset is None:
        raise GlimpseZooError(f"expected published weights with an ImageNet head to cut, got a head of {head} classes: choose another tag")
    found = _candidates(classes, ImageNetInfo(subset))
    missing = [name for name, rows in zip(classes, found, strict=True) if not rows]
    if missing:
        some = ", ".join(repr(name) for name in missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise GlimpseZooError(
            f"expected classes of {subset} for timm's weights, got {len(missing)} others among the data's {len(classes)} ({some}): "
            "train the model on the data instead"
        )
    for name, rows in zip(classes, found, strict=True):
        if len(rows) > 1:
            raise GlimpseZooError(f"the class {name!r} matches {len(rows)} classes of {subset}: name the data's classes by WordNet id")
    chosen = [rows[0] for rows in found]
    for name, row in zip(classes, chosen, strict=True):
        if chosen.count(row) > 1:
            raise GlimpseZooError(
                f"expected different classes, but {name!r} and another are the same class of {subset}: check the data's names"
            )
    return chosen


def _candidates(classes: Sequence[str], info: ImageNetInfo) -> list[list[int]]:
    """The candidate rows of each class: by WordNet id, else by the whole name, else by its first synonym."""
    ids = {label: [row] for row, label in enumerate(info.label_names())}
    wholes: defaultdict[str, list[int]] = defaultdict(list)
    firsts: defaultdict[str, list[int]] = defaultdict(list)
    for row, name in enumerate(info.label_descriptions()):
        wholes[_plain(name)].append(row)
        firsts[_plain(name.split(",")[0])].append(row)
    return [ids.get(name) or wholes.get(_plain(name)) or firsts.get(_plain(name)) or [] for name in classes]


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").casefold().split())
