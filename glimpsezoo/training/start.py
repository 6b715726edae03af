"""The card that a training starts from: its weights, and the settings that are taken from it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.specs import ModelSpec
from glimpsezoo.training.request import TrainingRequest
from glimpsezoo.training.target import Target, default_folder, read_recipe_file, target_of_recipe
from glimpsezoo.zoo.card_config import CONFIG
from glimpsezoo.zoo.cards import Card, find_card, misfits
from glimpsezoo.zoo.names import Assignments
from glimpsezoo.zoo.own_data import own_settings
from glimpsezoo.zoo.plugins import registry

if TYPE_CHECKING:
    from glimpsezoo.core.protocol import GlimpseModel


def chosen_start(request: TrainingRequest) -> Card | None:
    """The card that the user chose to start from, by --set train.start or in a recipe file. None if only a recipe of the zoo names one."""
    start = Assignments.parse(request.sets, [request.model], scopes=("data", "train")).of("train").get("start")
    if start is None and request.recipe_file is not None:
        target = target_of_recipe(request.model)
        spec, model = (target.spec, target.model) if target else (registry().find(ModelSpec, request.model), request.model)
        start = read_recipe_file(request.recipe_file, spec, model).start
    return find_start(start) if start else None


def settings_of_start(start: Card | None, target: Target) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings that are taken from the chosen card: the model's, if both models are the same, and those of the data."""
    if start is None:
        return {}, {}
    own = start.config
    return (own.config if own.model == target.model else {}), own_settings(own, target.data)


def load_start(name: str, model: "GlimpseModel[Any]", *, trains: bool = True) -> Card:
    """Load the card's weights into the networks that both models have, and return the card. All other networks keep their initial weights.

    So MGNet can start with the backbone of a plain classifier. trains: whether a training follows; if not, the card must have every weight.
    Raises `GlimpseZooError` if nothing fits.
    """
    card, own = find_start(name).located(), model.state_dict()
    shared = {key: tensor for key, tensor in card.weights().items() if key in own}
    problems = misfits(shared, {key: own[key] for key in shared} if trains else own) if shared else ["they have no tensor in common"]
    if problems:
        raise GlimpseZooError(
            f"the recipe starts from the card {name!r}, which does not fit: {problems[0]}; name another card, or settings"
        )
    model.load_state_dict(shared, strict=False)
    return card


def find_start(name: str) -> Card:
    """The card at a path; else one that `train` wrote in this folder, which precedes one of the same name in the zoo."""
    card = find_card(name) if (Path(name) / CONFIG).is_file() else find_card(str(default_folder(name))) or find_card(name)
    if card is None:
        raise GlimpseZooError(f"the recipe starts from the card {name!r}, which is not here: train it first ('glimpsezoo train {name}')")
    return card
