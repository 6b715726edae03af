"""`import`: from a checkpoint of the authors to a card that `run` accepts."""

from pathlib import Path

import pytest
from command_line import ask

import glimpsezoo as gz
from glimpsezoo.reports.readme import card_text
from glimpsezoo.zoo.cards import LOG, Card
from glimpsezoo.zoo.results import result_type


def test_an_import_gives_a_card_that_run_accepts(here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """The workflow around a converter: names of classes from --data, notes in the README, force for a second time."""
    import glimpsezoo_mgnet.importer as importer

    model = gz.create_model("mgnet", data="digits", glimpses=2, seed=3)
    unnamed = gz.Task((64, 64), 1, tuple(f"class {n}" for n in range(10)))
    monkeypatch.setattr(importer, "importer", lambda path, sets: (model.config, unnamed, model.state_dict(), ["seen nowhere"]))
    (here / "released.ckpt").write_bytes(b"")
    words = ("import", "mgnet", here / "released.ckpt", "-o", "zoo_cards/mgnet.digits", "--data", "digits")
    answer = ask(capsys, *words)
    assert answer.status == 0
    assert answer.out.splitlines()[0] == "mgnet.digits -> zoo_cards/mgnet.digits"
    readme = (here / "zoo_cards" / "mgnet.digits" / "README.md").read_text()
    assert "Imported from `released.ckpt`" in readme
    assert "- seen nowhere" in readme
    assert str(here) not in readme
    found = ask(capsys, "run", "mgnet", "--limit", "20", "--json").json["results"][0]
    assert result_type().model_validate(found).model.checkpoint is not None
    assert ask(capsys, *words).status == 2
    (here / "zoo_cards" / "mgnet.digits" / LOG).write_text("of weights that were here before")
    assert ask(capsys, *words, "--force").status == 0
    assert not (here / "zoo_cards" / "mgnet.digits" / LOG).exists()
    other = ask(capsys, *words[:-1], "imagenet100", "--force")
    assert "10 classes, got imagenet100 with 100" in other.err


def test_an_imported_card_has_the_authors_numbers_beside_its_own_and_the_size_of_its_data(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    import glimpsezoo_mgnet.importer as importer
    from test_tables_robust import result

    from glimpsezoo.measures.text import macs_text

    task = gz.Task((28, 28), 1, tuple(map(str, range(10))))
    model = gz.create_model("mgnet", task=task, backbone="cnn4", glimpses=2)
    exits = (gz.PublishedExits(thresholds=(0.9, 0.0), top1=0.8, macs=3e6),)
    published = gz.Published(top1=(0.7512, 0.8125), macs=(2e6, 4e6), exits=exits)
    monkeypatch.setattr(importer, "importer", lambda path, sets: (model.config, task, model.state_dict(), [], published))
    (here / "released.ckpt").write_bytes(b"")
    assert ask(capsys, "import", "mgnet", here / "released.ckpt", "-o", "card", "--data", "plain-mnist").status == 0
    card = Card.read(here / "card")
    assert card.config.published() == published
    assert card.config.data.settings == {"size": 28}
    unmeasured = (here / "card" / "README.md").read_text()
    assert "| 1 | 75.12 | 2.000 M |" in unmeasured
    assert "thresholds of early exits, for 1 budgets" in unmeasured
    ours = result("mgnet")
    assert ours.accuracy is not None
    first = ours.accuracy.steps[0]
    assert f"| 1 | 75.12 | {100 * first.top1.value:.2f} | 2.000 M | {macs_text(first.macs)} |" in card_text(card, ours)
