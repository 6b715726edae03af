"""`import`: from a checkpoint of the authors to a card that `run` accepts."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from command_line import ask, photos

import glimpsezoo as gz
from glimpsezoo.reports.readme import card_text
from glimpsezoo.workflows import importing
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


def test_a_file_that_run_imports_has_the_classes_of_the_data_that_are_measured(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """They may lie in folders of one name. What was imported is used again, until the plugin's code is another."""
    import glimpsezoo_mgnet.importer as importer

    unnamed, imports = gz.Task((64, 64), 3, ("class 0", "class 1")), list[Path]()
    model = gz.create_model("mgnet", task=unnamed, glimpses=2, seed=3)
    answer = (model.config, unnamed, model.state_dict(), [])
    monkeypatch.setattr(importer, "importer", lambda path, sets: imports.append(path) or answer)
    (here / "released.ckpt").write_bytes(b"")
    for folder, names in (("a", ("cat", "dog")), ("b", ("fish", "hen"))):
        photos(here / folder / "photos", per_class=10)
        for old, new in zip(("dark", "light"), names, strict=True):
            (here / folder / "photos" / old).rename(here / folder / "photos" / new)

    def measured(folder: str) -> list[str]:
        words = ("run", "mgnet", "--checkpoint", "released.ckpt", "--data", f"folder:{folder}/photos", "--measure", "accuracy", "--json")
        found = ask(capsys, *words)
        assert found.status == 0, found.err
        return list(found.json["results"][0]["data"]["inferred"]["classes"])

    assert [measured(folder) for folder in "ab"] == [["cat", "dog"], ["fish", "hen"]]
    assert len(imports) == 2
    measured("a")
    assert len(imports) == 2
    monkeypatch.setattr(importing, "module_hash", lambda name: f"another {name}")
    measured("a")
    assert len(imports) == 3


def test_commands_that_import_one_file_at_once_wait_for_each_other(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    import glimpsezoo_mgnet.importer as importer

    model = gz.create_model("mgnet", data="digits", glimpses=2, backbone="cnn4", seed=3)
    monkeypatch.setattr(importer, "importer", lambda path, sets: (model.config, model.task, model.state_dict(), []))
    (here / "released.ckpt").write_bytes(b"")
    meet, kept = Barrier(2), importing.write_card
    found = list[Path]()

    def write(folder: Path, *given: Any, **more: Any) -> Card:
        found.append(folder)
        time.sleep(0.5)  # while the other one waits
        return kept(folder, *given, **more)

    def converted(*given: Any, **more: Any) -> Any:
        meet.wait()
        return convert(*given, **more)

    convert = importing._converted
    monkeypatch.setattr(importing, "write_card", write)
    monkeypatch.setattr(importing, "_converted", converted)
    with ThreadPoolExecutor(2) as both:
        one, other = both.map(lambda _: importing.import_for_models(["mgnet"], here / "released.ckpt", "digits"), range(2))
    assert one == other
    assert found == [one[0]]


@pytest.mark.parametrize("name", ["a\\b", "x" * 240, "a\u202eb"])
def test_a_folder_whose_name_no_card_can_have_is_refused(here: Path, capsys: pytest.CaptureFixture[str], name: str):
    (here / "released.ckpt").write_bytes(b"")
    answer = ask(capsys, "import", "mgnet", "released.ckpt", "-o", name, "--data", "digits")
    assert answer.status == 2
    assert answer.err.startswith("glimpsezoo: expected a ")
    assert answer.err.endswith(": give its folder, or the file of its weights, another one\n")


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


def test_data_of_any_size_are_measured_as_the_imported_model_takes_them(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    import glimpsezoo_mgnet.importer as importer

    task = gz.Task((48, 48), 1, ("0", "1"))
    model = gz.create_model("mgnet", task=task, backbone="cnn4", glimpses=2)
    monkeypatch.setattr(importer, "importer", lambda path, sets: (model.config, task, model.state_dict(), []))
    (here / "released.ckpt").write_bytes(b"")
    photos(here / "photos")
    assert ask(capsys, "import", "mgnet", "released.ckpt", "-o", "card", "--data", "folder:photos").status == 0
    assert Card.read(here / "card").config.data.settings == {"size": 48, "channels": 1}
    found = ask(capsys, "run", "card", "--measure", "accuracy", "--json")
    assert (found.json["results"][0]["data"]["image_size"], found.json["results"][0]["data"]["channels"]) == ([48, 48], 1)
    assert "never trained" not in found.err


def test_settings_of_the_data_stand_in_the_card_and_run_uses_them(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """The user's before the authors', and those of the authors only where the data have them."""
    import glimpsezoo_mgnet.importer as importer

    task = gz.Task((32, 32), 3, ("0", "1"))
    model = gz.create_model("mgnet", task=task, backbone="cnn4", glimpses=2)
    theirs = {"crop": 0.904, "colours": "keep", "unheard-of": 1}
    monkeypatch.setattr(importer, "importer", lambda path, sets: (model.config, task, model.state_dict(), [], None, theirs))
    (here / "released.ckpt").write_bytes(b"")
    photos(here / "photos")
    words = ("import", "mgnet", here / "released.ckpt", "--data", "folder:photos", "--set", "data.size=32")
    assert ask(capsys, *words, "-o", "authors").status == 0
    assert Card.read(here / "authors").config.data.settings == {"crop": 0.904, "colours": "keep", "size": 32}
    assert "published" not in Card.read(here / "authors").config.trained
    assert ask(capsys, *words, "--set", "data.size=48", "--set", "data.crop=.5", "-o", "mine").status == 0
    mine = Card.read(here / "mine").config
    assert (mine.data.settings, mine.task.image_size) == ({"crop": 0.5, "colours": "keep", "size": 48}, (48, 48))
    for card, settings in (("authors", {"crop": 0.904, "size": 32}), ("mine", {"crop": 0.5, "size": 48})):
        found = ask(capsys, "run", card, "--data", "folder:photos", "--measure", "flops", "--limit", "2", "--json").json["results"][0]
        assert found["data"]["settings"] == settings


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (("--data", "imagenet", "--set", "data.crop=9"), "--set crop=9 for data: "),
        (("--data", "imagenet", "--set", "data.crp=.9"), "data has no setting 'crp': did you mean 'crop'?"),
        (("--set", "data.crop=.9"), "--set data.crop expects the data that the weights were trained on, got none: add --data NAME"),
    ],
)
def test_a_wrong_setting_of_the_data_is_refused(given: tuple[str, ...], why: str, here: Path, capsys: pytest.CaptureFixture[str]):
    (here / "released.ckpt").write_bytes(b"")
    answer = ask(capsys, "import", "mgnet", here / "released.ckpt", "-o", "card", *given)
    assert answer.status == 2
    assert why in answer.err
    assert len(answer.err.splitlines()) == 1
