"""Models on the Hub, with the real client and a server on the loopback address: named, pulled, pinned, interrupted, gated and offline."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import RECIPE, make_card, put_weights, rewrite, sha256
from data_files import mnist
from hub_client import Client
from hub_server import TOKEN, HubServer
from safetensors.torch import save

from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.reports.readme import card_text
from glimpsezoo.training.folder import locked
from glimpsezoo.zoo.cards import Card
from glimpsezoo.zoo.names import Assignments, build_model, choose_model
from glimpsezoo.zoo.results import evidence

NAME = "hf-hub:me/net"
SHIPPED = Path(__file__).parents[1] / "zoo_cards" / "cnn4.digits"


@pytest.fixture
def card(tmp_path: Path) -> Card:
    """An untrained card with a unique name."""
    return make_card(tmp_path / "made" / "cnn4.digits.mine")


def checkpoint(client: Client, run: str = "out") -> Any:
    (result,) = (client.folder / run).glob("*/result.json")
    return json.loads(result.read_text())["model"]["checkpoint"]


def loaded(*names: str) -> list[Any]:
    """In a client: load each model; returns the place, commit and hash of its weights, or the one-line error."""
    found = []
    for name in names:
        try:
            choice = choose_model(name, "digits", Assignments(), None)
            assert choice.card is not None
            build_model(choice, choice.card.config.task.task())
            used = choice.card.checkpoint()
            found.append(used and used.model_dump())
        except GlimpseZooError as error:
            found.append(str(error))
    return found


def only_line(answer: Any) -> str:
    """The one-line error of a command."""
    assert (answer.status, answer.out, answer.err.count("\n")) == (2, "", 1), answer
    return answer.err


def test_a_card_of_the_hub_is_measured_and_its_commit_and_hash_recorded_and_then_again_without_a_network(
    hub: HubServer, client: Client, card: Card
) -> None:
    (card.folder / "pytorch_model.bin").write_bytes(b"a pickle")
    (card.folder / "modeling.py").write_text("raise SystemExit('executed')")
    commit = hub.repository("me/net", card.folder).head
    first = client.command("run", NAME, "--limit", 20, "-o", "out")
    assert first.status == 0, first.err
    assert checkpoint(client) == {"uri": NAME, "revision": commit, "sha256": sha256(card.folder)}
    assert not [asked for asked in hub.asked if asked.path.endswith((".bin", ".py"))]

    hub.asked.clear()
    again = client.command("run", NAME, "--limit", 20, "-o", "again", "--fresh", HF_HUB_OFFLINE="1")
    assert (again.status, again.out) == (0, first.out)
    assert checkpoint(client, "again") == checkpoint(client)
    assert hub.asked == []


def test_a_revision_pins_a_tag_or_a_commit(hub: HubServer, client: Client, card: Card) -> None:
    repository = hub.repository("me/net", card.folder)
    old, before = sha256(card.folder), repository.head
    repository.tags["v1"] = before
    put_weights(card, save({"x": torch.ones(2)}))
    repository.commit({path.name: path.read_bytes() for path in card.folder.iterdir()})
    found = client.call(loaded, f"{NAME}@v1", f"{NAME}@{before}")
    assert [one["sha256"] for one in found] == [old, old]
    assert [one["revision"] for one in found] == [before, before]
    assert client.command("show", NAME, "--json").json["weights"]["sha256"] == sha256(card.folder)


def test_a_pulled_card_is_a_whole_one_that_its_name_finds(hub: HubServer, client: Client) -> None:
    commit = hub.repository("me/net", SHIPPED).head
    assert "which " in only_line(client.command("pull", NAME))  # its name is that of a shipped card
    assert client.command("pull", NAME, "--force").status == 0
    pulled = Card.read(client.folder / "home" / "zoo" / "cards" / SHIPPED.name)
    assert pulled.config == Card.read(SHIPPED).config.model_copy(update={"hub": f"me/net@{commit}"})
    for file in ("model.safetensors", "result.json", "rows.parquet", "training.jsonl"):
        assert (pulled.folder / file).read_bytes() == (SHIPPED / file).read_bytes()
    assert (pulled.folder / "README.md").read_text() == card_text(pulled, evidence(Card.read(SHIPPED)))
    assert {path.name for path in pulled.folder.iterdir()} == {path.name for path in SHIPPED.iterdir()}

    assert client.call(loaded, "cnn4", HF_HUB_OFFLINE="1") == [{"uri": NAME, "revision": commit, "sha256": sha256(pulled.folder)}]
    assert "with one: choose another --output, or --force" in only_line(client.command("pull", NAME, "-o", pulled.folder))
    with locked(client.folder / "taken"):
        assert "another command writes to 'taken'" in only_line(client.command("pull", NAME, "-o", "taken"))


def test_a_card_of_the_hub_knows_its_data_and_is_called_by_its_place(hub: HubServer, client: Client, tmp_path: Path) -> None:
    made = make_card(tmp_path / "made" / "cnn4.digits", data_settings={"seed": 3})
    hub.repository("me/net", made.folder)
    make_card(client.folder / "zoo_cards" / "cnn4.digits", data_settings={"seed": 3}, seed=1)
    answer = client.command("run", NAME, "cnn4.digits", "--limit", "10", "--measure", "accuracy", "-o", "out", "--json")
    assert answer.status == 0, answer.err
    found = answer.json["results"]
    assert [each["model"]["name"] for each in found] == [NAME, "cnn4.digits"]
    assert [each["data"]["settings"] for each in found] == [{"seed": 3}] * 2


def test_a_card_without_weights_takes_them_from_the_repository_that_it_names(hub: HubServer, client: Client, card: Card) -> None:
    commit = hub.repository("me/net", card.folder).head
    weights, digest = json.loads((card.folder / "config.json").read_text())["weights"], sha256(card.folder)
    cases = {"none": {"weights": None}, "its own": {"weights": weights}, "other": {"weights": {**weights, "sha256": "0" * 64}}}
    for name, changes in {**cases, "misfit": {"weights": None, "model": "mgnet"}}.items():
        (client.folder / name).mkdir()
        (client.folder / name / "config.json").write_bytes((card.folder / "config.json").read_bytes())
        rewrite(Card.read(client.folder / name), hub="me/net", **changes)
    none, own, other, misfit = client.call(loaded, "none", "its own", "other", "misfit")
    assert none == own == {"uri": NAME, "revision": commit, "sha256": digest}
    assert "card 'cnn4.digits.mine' expects other weights" in other
    assert "(another sha256)" in other
    assert "has another model or task" in misfit
    assert [path.name for path in (client.folder / "none").iterdir()] == ["config.json"]


def test_a_model_s_name_alone_fetches_its_data_and_the_weights_of_its_card(hub: HubServer, client: Client, tmp_path: Path) -> None:
    made = make_card(tmp_path / "made" / "cnn4.mnist", data="mnist")
    commit = hub.repository("me/net", made.folder).head
    hub.repository("ylecun/mnist", mnist(tmp_path / "copy"), kind="datasets")
    named = client.folder / "zoo_cards" / "cnn4.mnist"
    named.mkdir(parents=True)
    (named / "config.json").write_bytes((made.folder / "config.json").read_bytes())
    rewrite(Card.read(named), hub="me/net")
    answer = client.command("run", "cnn4", "--data", "mnist", "-o", "out")
    assert answer.status == 0, answer.err
    assert checkpoint(client) == {"uri": NAME, "revision": commit, "sha256": sha256(made.folder)}
    assert hub.gets("model.safetensors")
    assert hub.gets("test-00000-of-00001.parquet")


def test_a_training_starts_from_a_card_of_the_hub(hub: HubServer, client: Client) -> None:
    card = make_card(client.folder / "made" / "cnn4.digits.mine", seed=5)  # other weights than from the recipe's seed
    hub.repository("me/net", card.folder)
    recipe = f'start = "{NAME}"\n' + RECIPE.replace("epochs = 2", "steps = 1").replace("lr = 0.01", "lr = 1e-9")
    (client.folder / "recipe.toml").write_text(recipe)
    answer = client.command("train", "cnn4", "--recipe", "recipe.toml", "-o", "trained")
    assert answer.status == 0, answer.err
    trained = Card.read(client.folder / "trained").weights()
    assert all(torch.allclose(value, trained[name], atol=1e-6) for name, value in card.weights().items())


WORDS = {
    "hf-hub:me/other": "got 'me/other', which does not exist or is private: check its name, or log in",
    "hf-hub:me/private": "got 'me/private', which does not exist or is private",
    "hf-hub:me/gated": "me/gated is gated, and this account has no access: accept its terms at http",
    "hf-hub:me/net@v9": "expected a branch, tag or commit of me/net, got 'v9'",
    "hf-hub:net": "expected a repository of the Hub as hf-hub:OWNER/NAME[@REVISION], got 'hf-hub:net'",
    "hf-hub:me/../..": "expected a repository of the Hub as",
}


def test_what_cannot_be_had_is_one_line(hub: HubServer, client: Client, card: Card) -> None:
    for name, access in {"me/net": {}, "me/private": {"private": True}, "me/gated": {"gated": True}}.items():
        hub.repository(name, card.folder, **access)
    for line, words in zip(client.call(loaded, *WORDS), WORDS.values(), strict=True):
        assert words in line
        assert "\n" not in line
    words = "me/gated is gated, and this account has no access: accept its terms at"
    assert words in only_line(client.command("run", "hf-hub:me/gated", HF_TOKEN=TOKEN))
    words = "me/net was not downloaded before, and HF_HUB_OFFLINE forbids"
    assert words in only_line(client.command("show", NAME, HF_HUB_OFFLINE="1"))


def test_without_a_network_it_is_one_line_too(hub: HubServer, client: Client) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # without a listener
        nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}"
        line = only_line(client.command("pull", NAME, HF_ENDPOINT=nowhere, HTTP_PROXY="", http_proxy=""))
    assert "cannot get me/net from the Hub (" in line
    assert "check the network (and HF_ENDPOINT); the same command goes on from here" in line


@pytest.mark.parametrize("access", [{"gated": True, "readers": {TOKEN}}, {"private": True}])
def test_a_token_opens_what_its_owner_may_read(hub: HubServer, client: Client, card: Card, access: dict[str, Any]) -> None:
    hub.repository("me/net", card.folder, **access)
    assert client.command("pull", NAME, "-o", "pulled", HF_TOKEN=TOKEN).status == 0
    assert {asked.token for asked in hub.asked} == {TOKEN}


def test_weights_of_another_hash_are_refused_and_damaged_ones_fetched_anew(hub: HubServer, client: Client, card: Card) -> None:
    good = (card.folder / "model.safetensors").read_bytes()
    repository = hub.repository("me/net", card.folder)
    repository.commit({"model.safetensors": good[:-1] + b"?"})
    assert "me/net has another 'model.safetensors' than its card names (another sha256)" in only_line(client.command("run", NAME))
    repository.commit({"model.safetensors": good})
    assert client.command("pull", NAME, "-o", "pulled").status == 0
    kept = next((client.folder / "home").glob(f"hub/*/blobs/{sha256(card.folder)}"))
    kept.write_bytes(b"damaged since")
    assert client.command("pull", NAME, "-o", "pulled", "--force").status == 0
    assert kept.read_bytes() == good


def test_weights_that_are_no_safetensors_are_refused(hub: HubServer, client: Client, card: Card) -> None:
    put_weights(card, b"\x80\x04 a pickle")
    hub.repository("me/net", card.folder)
    assert "as safetensors, got a damaged file (" in only_line(client.command("pull", NAME, "-o", "pulled"))
    assert not (client.folder / "pulled").exists()


def test_a_full_disk_is_one_line(hub: HubServer, client: Client, card: Card) -> None:
    hub.repository("me/net", card.folder)
    assert client.command("show", NAME).status == 0
    blobs = next((client.folder / "home").glob("hub/*/blobs"))
    (blobs / f"{sha256(card.folder)}.part").symlink_to("/dev/full")
    line = only_line(client.command("run", NAME))
    assert "the disk is full, downloading me/net, which takes 0 MB: free some space, or set HF_HOME to another disk" in line


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_file": "pickle.bin"}, "in the card 'me/net', got an invalid one (model_file: Extra inputs are not permitted)"),
        ({"weights": {"file": "../../x.safetensors", "sha256": "0" * 64, "bytes": 1}}, "(weights.file: String should match pattern"),
        ({"weights": {"file": "model.bin", "sha256": "0" * 64, "bytes": 1}}, "(weights.file: String should match pattern"),
        ({"weights": {"file": "model.safetensors", "sha256": "../..", "bytes": 1}}, "(weights.sha256: String should match pattern"),
        ({"name": ".."}, "(name: Value error, expected a printable name)"),
        ({"name": "a\x1b[31m"}, "(name: Value error, expected a printable name)"),
        ({"plugin": "x; curl"}, "(plugin: String should match pattern"),
        ({"license": "mit\nevil: true"}, "(license: String should match pattern"),
    ],
)
def test_a_config_from_anybody_is_checked_before_it_is_used(card: Card, changes: dict[str, Any], words: str) -> None:
    rewrite(card, **changes)
    with pytest.raises(GlimpseZooError) as raised:
        Card.read(card.folder, called="me/net")
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("content", "words"), [(None, "got one without 'config.json'"), (b"<html>", "got an invalid one (Invalid JSON")])
def test_a_repository_that_is_no_card_is_said_to_be_none(hub: HubServer, client: Client, content: bytes | None, words: str) -> None:
    hub.repository("me/net", {"README.md": b"", **({"config.json": content} if content else {})})
    line = only_line(client.command("show", NAME))
    assert words in line
    assert "me/net" in line


def test_a_card_of_a_plugin_that_is_not_here_names_it(hub: HubServer, client: Client, card: Card) -> None:
    rewrite(card, model="x", plugin="glimpsezoo-x")
    hub.repository("me/net", card.folder)
    assert "install its plugin, glimpsezoo-x" in only_line(client.command("run", NAME))
    pulled = client.command("pull", NAME, "-o", "pulled")
    assert (pulled.status, "install its plugin, glimpsezoo-x" in pulled.err) == (0, True)
