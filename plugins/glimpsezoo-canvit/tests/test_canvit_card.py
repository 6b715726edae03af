"""The card of the authors' weights, and what the plugin says where their package is missing: under every version of Python."""

import sys

import pytest
from glimpsezoo_canvit import plugin
from glimpsezoo_canvit.config import CanViTConfig
from glimpsezoo_canvit.model import CanViT

from glimpsezoo import GlimpseZooError, Task
from glimpsezoo.specs import PaperSpec
from glimpsezoo.zoo.cards import find_card
from glimpsezoo.zoo.names import data_spec
from glimpsezoo.zoo.papers import PrintedTables
from glimpsezoo.zoo.plugins import registry

FIRST, SECOND = (3, 11, 9), (3, 12, 0)


@pytest.mark.parametrize(
    ("version", "words"), [(FIRST, ("Python 3.12 or later, got Python 3.11",)), (SECOND, ("pip install canvit-pytorch",))]
)
def test_without_the_authors_package_one_line_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int], words: tuple[str, ...]
) -> None:
    monkeypatch.setattr(plugin, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "version_info", version)
    (spec,) = plugin.register_models()
    assert "canvit needs canvit-pytorch" in spec.unavailable
    assert "\n" not in spec.unavailable
    assert all(word in spec.unavailable for word in words)
    with pytest.raises(GlimpseZooError) as caught:
        CanViT(CanViTConfig(), Task((64, 64), 3, ("a", "b")))
    assert str(caught.value) == spec.unavailable


def test_it_is_available_from_python_3_12_on() -> None:
    (spec,) = plugin.register_models()
    assert bool(spec.unavailable) == (sys.version_info < (3, 12))


def test_the_card_pins_the_weights_and_asks_for_the_authors_images() -> None:
    card = find_card("canvit.imagenet")
    assert card is not None
    assert card.origin is not None
    assert card.origin.at_commit
    assert (card.config.released, card.config.weights, card.config.license) == (True, None, "mit")
    assert CanViTConfig.parse(card.config.config, owner="card") == CanViTConfig()  # canvit-pytorch's defaults, too: test_canvit_model
    imagenet = data_spec("imagenet").task
    assert imagenet is not None
    assert card.config.data.settings == {"size": 512, "crop": 1.0}
    assert card.config.task.task() == Task((512, 512), 3, imagenet.classes, mean=imagenet.mean, std=imagenet.std)


def test_the_card_and_the_paper_s_table_have_the_same_numbers() -> None:
    card = find_card("canvit.imagenet")
    assert card is not None
    published = card.config.published()
    assert published is not None
    (table,) = PrintedTables.of(registry().find(PaperSpec, "canvit-2026")).table
    rows = {(row.policy, row.step): row.printed for row in table.row}
    own = {step: printed for (policy, step), printed in rows.items() if policy is None}
    assert own == {step: pytest.approx(100 * published.top1[step - 1]) for step in own}
    assert len(own) == 7
    assert len(published.top1) == len(published.macs) == CanViTConfig().glimpses
    policies = [policy for policy in dict.fromkeys(row.policy for row in table.row) if policy]
    assert policies == ["fine-to-coarse", "random", "whole-then-random", "whole"]
    assert f"policies.names={','.join(policies)} " in table.needs
    assert [rows[policy, 1] for policy in (None, "whole", "whole-then-random")] == [80.588] * 3  # the same first glimpse
