"""Cards published to the Hub, with the real client and a server on the loopback address: `push`, and the methods of models."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import make_card, put_weights
from hub_client import Client
from hub_server import TOKEN, Fault, HubServer
from safetensors.torch import save
from torch import Tensor

import glimpsezoo as gz
from glimpsezoo.reports.readme import card_text
from glimpsezoo.zoo.cards import Card
from glimpsezoo.zoo.results import evidence, read_result

SHIPPED = Path(__file__).parents[1] / "zoo_cards" / "mgnet.digits"


def logits(model: gz.GlimpseModel[Any]) -> Tensor:
    """Of four images of noise, always the same."""
    shape = (4, model.task.channels, *model.task.image_size)
    with torch.no_grad():
        return gz.rollout(model, torch.rand(shape, generator=torch.Generator().manual_seed(0))).logits


def published(hub: HubServer, name: str = "me/net") -> dict[str, bytes]:
    return hub.repositories["models", name].commits[-1][1]


class TestPush:
    def test_a_card_is_published_whole_with_the_readme_of_its_result_and_comes_back(self, hub: HubServer, client: Client) -> None:
        answer = client.command("push", "mgnet.digits", "me/net", HF_TOKEN=TOKEN)
        assert answer.status == 0, answer.err
        assert answer.out.splitlines()[1] == "measure it: glimpsezoo run hf-hub:me/net"
        files = published(hub)
        assert set(files) == {path.name for path in SHIPPED.iterdir()}
        for file in ("model.safetensors", "result.json", "rows.parquet", "training.jsonl", "training.svg"):
            assert files[file] == (SHIPPED / file).read_bytes()
        card = Card.read(SHIPPED)
        there = Card(SHIPPED, card.config.model_copy(update={"hub": "me/net"}))
        assert json.loads(files["config.json"]) == there.config.model_dump(mode="json")
        assert files["README.md"].decode() == card_text(there, evidence(card))
        assert len(hub.large) == 2  # weights and rows, through git-lfs

        assert client.command("pull", "hf-hub:me/net", "-o", "back").status == 0
        assert (client.folder / "back" / "model.safetensors").read_bytes() == files["model.safetensors"]

    def test_evidence_of_other_weights_is_left_out(self, hub: HubServer, client: Client) -> None:
        card = make_card(client.folder / "card")
        for file in ("result.json", "rows.parquet"):
            (card.folder / file).write_bytes((SHIPPED / file).read_bytes())
        (card.folder / "README.md").write_text("100 % accurate")
        (card.folder / "notes.txt").write_text("private")
        assert client.command("push", "card", "me/net", HF_TOKEN=TOKEN).status == 0
        assert set(published(hub)) == {"README.md", "config.json", "model.safetensors"}
        assert b"Not measured yet" in published(hub)["README.md"]

    def test_the_log_of_other_weights_is_left_out(self, hub: HubServer, client: Client) -> None:
        card = make_card(client.folder / "card")
        for file in ("training.jsonl", "training.svg"):
            (card.folder / file).write_bytes((SHIPPED / file).read_bytes())
        (card.folder / ".training.lock").touch()  # of a training that was killed
        gz.create_model("cnn4", data="digits", seed=1).save_pretrained(card.folder)
        assert client.command("push", "card", "me/net", HF_TOKEN=TOKEN).status == 0
        assert set(published(hub)) == {"README.md", "config.json", "model.safetensors"}

    def test_a_card_that_is_there_is_replaced_by_force_alone(self, hub: HubServer, client: Client) -> None:
        make_card(client.folder / "card")
        assert client.command("push", "card", "me/net", HF_TOKEN=TOKEN).status == 0
        make_card(client.folder / "card", seed=1)
        answer = client.command("push", "card", "me/net", HF_TOKEN=TOKEN)
        assert (answer.status, "got 'me/net' with one: name another, or --force" in answer.err) == (2, True)
        assert client.command("push", "card", "me/net", "--force", HF_TOKEN=TOKEN).status == 0
        assert len(hub.repositories["models", "me/net"].commits) == 2

    def test_nothing_of_a_replaced_card_stays(self, hub: HubServer, client: Client) -> None:
        make_card(client.folder / "card")
        assert client.command("push", "mgnet.digits", "me/net", HF_TOKEN=TOKEN).status == 0
        hub.repositories["models", "me/net"].commit({"notes.txt": b"of the owner"})
        assert client.command("push", "card", "me/net", "--force", HF_TOKEN=TOKEN).status == 0
        assert set(published(hub)) == {"README.md", "config.json", "model.safetensors", "notes.txt"}

    def test_a_link_in_a_card_publishes_no_file_of_this_machine(self, hub: HubServer, client: Client) -> None:
        card = make_card(client.folder / "card")
        (client.folder / "secret").write_text("of this machine")
        (card.folder / "training.jsonl").write_text("{}")
        (card.folder / "training.svg").symlink_to("training.jsonl")  # its own
        assert client.command("push", "card", "me/net", HF_TOKEN=TOKEN).status == 0
        (card.folder / "training.svg").unlink()
        (card.folder / "training.svg").symlink_to("../secret")
        answer = client.command("push", "card", "me/other", HF_TOKEN=TOKEN)
        assert (answer.status, "in which 'training.svg' is a link that leads out of it" in answer.err) == (2, True)
        assert set(hub.repositories) == {("models", "me/net")}

    def test_private_means_private(self, hub: HubServer, client: Client) -> None:
        make_card(client.folder / "card")
        assert client.command("push", "card", "me/net", "--private", HF_TOKEN=TOKEN).status == 0
        assert hub.repositories["models", "me/net"].private
        hub.repository("me/open", {})
        answer = client.command("push", "card", "me/open", "--private", HF_TOKEN=TOKEN)
        assert (answer.status, "expected a private repository, got 'me/open', which is public" in answer.err) == (2, True)
        assert published(hub, "me/open") == {}

    def test_a_push_that_was_cut_goes_on(self, hub: HubServer, client: Client) -> None:
        make_card(client.folder / "card")
        hub.faults.append(Fault("POST */commit/*", status=500))
        answer = client.command("push", "card", "me/net", HF_TOKEN=TOKEN)
        assert answer.status == 2
        line = answer.err.splitlines()[-1]  # after the client's progress bars
        assert line == "glimpsezoo: cannot publish me/net (HTTP status 500): check the network (and HF_ENDPOINT), then run again"
        hub.faults.clear()
        hub.asked.clear()
        assert client.command("push", "card", "me/net", HF_TOKEN=TOKEN).status == 0
        assert not [asked for asked in hub.asked if asked.method == "PUT"]  # because the first part had arrived

    @pytest.mark.parametrize(
        ("name", "environment", "words"),
        [
            ("me/net", {}, "the Hub does not let this account write 'me/net' ("),
            ("you/net", {"HF_TOKEN": TOKEN}, "the Hub does not let this account write 'you/net' ("),
            ("me/net", {"HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "1"}, "cannot publish me/net, because HF_HUB_OFFLINE forbids it: unset it"),
            ("net", {"HF_TOKEN": TOKEN}, "expected a repository of the Hub as hf-hub:OWNER/NAME[@REVISION], got 'net'"),
            ("me/net@v1", {"HF_TOKEN": TOKEN}, "expected OWNER/NAME to publish to, got 'me/net@v1': leave the revision out"),
        ],
    )
    def test_who_may_not_is_told_so_in_one_line(
        self, hub: HubServer, client: Client, name: str, environment: dict[str, str], words: str
    ) -> None:
        make_card(client.folder / "card")
        answer = client.command("push", "card", name, **environment)
        assert (answer.status, answer.err.count("\n"), words in answer.err) == (2, 1, True), answer
        assert not hub.repositories

    def test_weights_that_do_not_fit_go_nowhere(self, hub: HubServer, client: Client) -> None:
        put_weights(make_card(client.folder / "card"), save({"x": torch.ones(2)}))
        answer = client.command("push", "card", "me/net", HF_TOKEN=TOKEN)
        assert (answer.status, "do not fit its model" in answer.err) == (2, True)
        answer = client.command("push", "nothing", "me/net", HF_TOKEN=TOKEN)
        assert (answer.status, "expected a card, got 'nothing'" in answer.err) == (2, True)
        assert hub.asked == []


def loaded(name: str, revision: str | None = None) -> tuple[str, list[Any]]:
    """In a client: the class and the logits of a model of the Hub."""
    model = gz.GlimpseModel.from_pretrained(name, revision=revision)
    return type(model).__name__, logits(model).tolist()


def pushed(folder: str, name: str) -> str:
    """In a client: a model of a folder is published."""
    return gz.load(folder).push_to_hub(name, private=True)


class TestPython:
    @pytest.mark.parametrize("name", ["GlimpseModel", "FeedForward"])
    def test_the_class_alone_has_the_methods_of_cards(self, name: str) -> None:
        code = f"from glimpsezoo import {name} as kind; kind.from_pretrained, kind.save_pretrained, kind.push_to_hub"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def test_a_model_is_pushed_and_comes_back_the_same(self, hub: HubServer, client: Client) -> None:
        address = client.call(pushed, str(SHIPPED), "me/net", HF_TOKEN=TOKEN)
        repository = hub.repositories["models", "me/net"]
        assert address == f"{hub.url}/me/net/commit/{repository.head}"
        assert repository.private
        kept = json.loads(published(hub)["config.json"])
        assert {key: kept[key] for key in ("name", "trained", "license")} == {
            key: json.loads((SHIPPED / "config.json").read_text())[key] for key in ("name", "trained", "license")
        }
        expected = logits(gz.load("mgnet.digits")).tolist()
        assert client.call(loaded, "me/net", repository.head, HF_TOKEN=TOKEN) == ("MGNet", expected)
        assert client.call(loaded, f"hf-hub:me/net@{repository.head}", HF_HUB_OFFLINE="1") == ("MGNet", expected)

    def test_the_subclass_is_that_of_the_card_and_no_other_takes_it(self) -> None:
        model = gz.GlimpseModel.from_pretrained(SHIPPED, policy="centre")
        assert (type(model).__name__, model.policy, model.training) == ("MGNet", "centre", False)
        assert torch.equal(logits(type(model).from_pretrained(str(SHIPPED))), logits(gz.load("mgnet.digits")))
        other = type(gz.create_model("cnn4", data="digits"))
        with pytest.raises(gz.GlimpseZooError, match=r"CNN4.from_pretrained expects .* a card of MGNet"):
            other.from_pretrained(SHIPPED)

    def test_a_name_that_is_neither_folder_nor_repository_is_refused(self, tmp_path: Path) -> None:
        for name, revision, words in (
            ("mgnet", None, r"expected a repository of the Hub as hf-hub:OWNER/NAME\[@REVISION\], got 'mgnet'"),
            (tmp_path, None, "a folder with config.json"),
            (SHIPPED, "v1", "mgnet.digits', got revision='v1'"),
            ("me/net@v1", "v2", "expected one revision"),
        ):
            with pytest.raises(gz.GlimpseZooError, match=words):
                gz.GlimpseModel.from_pretrained(name, revision=revision)

    def test_what_is_saved_is_a_card_with_the_model_s_own_settings(self, tmp_path: Path) -> None:
        model = gz.create_model("mgnet", data="digits", glimpses=2, seed=3)
        model.save_pretrained(tmp_path / "mine")
        again = gz.load(str(tmp_path / "mine"))
        assert torch.equal(logits(again), logits(model))
        assert again.config == model.config
        config = Card.read(tmp_path / "mine").config
        assert (config.name, config.model, config.plugin, config.data.name, config.trained) == (
            "mine",
            "mgnet",
            "glimpsezoo-mgnet",
            "unknown",
            {},
        )
        gz.create_model("timm:test_resnet", data="digits").save_pretrained(tmp_path / "timm")
        assert Card.read(tmp_path / "timm").config.model == "timm:test_resnet"

    def test_weights_that_changed_are_not_said_to_be_those_that_were_trained(self, tmp_path: Path) -> None:
        model = gz.load("mgnet.digits")
        model.save_pretrained(tmp_path / "same")
        with torch.no_grad():
            next(model.parameters()).add_(1)
        model.save_pretrained(tmp_path / "other")
        own, same, other = (Card.read(folder).config for folder in (SHIPPED, tmp_path / "same", tmp_path / "other"))
        assert same == own
        assert (other.trained, other.name, other.data) == ({}, own.name, own.data)
        assert "Unknown: the card does not say." in (tmp_path / "other" / "README.md").read_text()

    def test_a_model_of_no_plugin_cannot_be_saved(self, tmp_path: Path) -> None:
        mine = type("Mine", (type(gz.create_model("cnn4", data="digits")),), {})
        model = gz.create_model("cnn4", data="digits")
        model.__class__ = mine
        with pytest.raises(gz.GlimpseZooError, match="expected a model that an installed plugin registers, got Mine"):
            model.save_pretrained(tmp_path / "mine")
        assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize("name", ["mgnet.digits", "cnn4.digits", "pyramid-m3.digits", "ranzato.digits"])
def test_the_metadata_of_a_readme_are_the_hub_s_and_its_numbers_the_result_s(name: str) -> None:
    from huggingface_hub import ModelCard

    folder = SHIPPED.parent / name
    result = read_result((folder / "result.json").read_bytes())
    assert result.accuracy is not None
    data = ModelCard(card_text(Card.read(folder), result)).data
    assert (data.license, data.library_name, data.pipeline_tag) == ("apache-2.0", "glimpsezoo", "image-classification")  # type: ignore[attr-defined]
    assert data.tags == ["glimpsezoo", result.model.name.partition(".")[0]]  # type: ignore[attr-defined]
    assert (data.datasets, data.metrics) == (["digits"], ["accuracy"])  # type: ignore[attr-defined]
    (found,) = data.eval_results or []
    assert (data.model_name, found.task_type, found.dataset_name, found.dataset_split) == (name, "image-classification", "digits", "test")  # type: ignore[attr-defined]
    assert (found.metric_type, found.metric_value) == ("accuracy", result.accuracy.top1.value)
