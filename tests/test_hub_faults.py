"""A Hub that is cut, slow, silent, busy, refusing or wrong, with the real clients: waiting is bounded and said, and downloads go on."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import make_card, put_weights
from data_files import encoded, picture, write_parquet
from hub_client import Client
from hub_server import TOKEN, Fault, HubServer
from safetensors.torch import save

from glimpsezoo.zoo.cards import Card

NAME = "hf-hub:me/net"
WEIGHTS = "GET */model.safetensors"


@pytest.fixture
def card(tmp_path: Path) -> Card:
    return make_card(tmp_path / "made" / "cnn4.digits.mine")


def failed(answer: Any) -> list[str]:
    """What a command said that failed: how it waited, then the error."""
    assert (answer.status, answer.out) == (2, ""), answer
    return answer.err.splitlines()


def waits(said: list[str]) -> list[str]:
    """How long a command waited, each time."""
    return [line.partition("waiting ")[2].partition(" before attempt")[0] for line in said]


def several(hub: HubServer, client: Client, card: Card, faults: dict[str, Fault], *words: str) -> dict[str, Any]:
    """The answers of a command to repositories whose requests have one fault each, and have nothing else in common."""
    for name, fault in faults.items():
        hub.repository(f"me/{name}", card.folder)
        fault.pattern = fault.pattern.replace("*", f"*me/{name}/*", 1)
        hub.faults.append(fault)
    found = client.commands(*[(words[0], f"hf-hub:me/{name}", *(f"{word}{name}" for word in words[1:])) for name in faults])
    return dict(zip(faults, found, strict=True))


# Waiting


def test_a_busy_hub_is_asked_again_and_the_waiting_is_said(hub: HubServer, client: Client, card: Card) -> None:
    faults = {f"s{status}": Fault("HEAD *config.json", status=status, times=2) for status in (408, 429, 500, 502, 503, 504)}
    faults["asks"] = Fault("HEAD *config.json", status=429, headers={"Retry_After": "5"}, times=1)
    faults["asks0"] = Fault("HEAD *config.json", status=429, headers={"Retry_After": "0"}, times=2)  # or it would be asked a thousand times
    for name, answer in several(hub, client, card, faults, "show").items():
        said = answer.err.splitlines()
        assert answer.status == 0, answer
        assert waits(said) == (["5 s"] if name == "asks" else ["1 s", "2 s"])
        assert all(f"HTTP status {faults[name].status}" in line for line in said)


def test_a_hub_that_stays_busy_is_given_up_within_bounds(hub: HubServer, client: Client, card: Card) -> None:
    hub.repository("me/net", card.folder)
    hub.faults.append(Fault("*", status=503))
    for answer in client.commands(("pull", NAME, "-o", "pulled"), ("run", NAME)):
        *said, last = failed(answer)
        assert waits(said) == ["1 s", "2 s", "4 s", "8 s", "8 s"]
        assert "cannot get me/net from the Hub (HTTP status 503, in 6 attempts): run again later" in last
    assert len(hub.asked) == 12


def test_who_is_asked_to_wait_for_an_hour_is_told_so_at_once(hub: HubServer, client: Client, card: Card) -> None:
    asks = ({"Retry_After": "3600"}, {"RateLimit": '"resolvers";r=0;t=3600'}, {"Retry_After": "Fri, 31 Dec 2100 23:59:59 GMT"})
    faults = {f"asks{k}": Fault("*", status=429, headers=headers) for k, headers in enumerate(asks)}
    for name, answer in several(hub, client, card, faults, "pull").items():
        (line,) = failed(answer)
        assert "(HTTP status 429; it asks to wait " in line
        assert "): run again after that" in line
        assert name == "asks2" or "3600 s (60 min)" in line
    assert len(hub.asked) == len(asks)


def hurried(commands: list[list[str]]) -> list[tuple[int, str, str]]:
    """In a client: commands that have less patience."""
    from hub_client import _commands

    from glimpsezoo import waiting

    waiting.PATIENCE, waiting.WINDOW = 2.5, 0.5
    return _commands(commands)


def test_a_hub_that_is_silent_or_drips_is_given_up(hub: HubServer, client: Client, card: Card) -> None:
    hub.repository("me/net", card.folder)
    hub.repository("me/drips", card.folder)
    hub.faults += [Fault("GET *me/drips/*/model.safetensors", drip=0.05), Fault("*me/net*", silent=True), Fault("*me/set*", silent=True)]
    commands = [["pull", NAME, "-o", "pulled"], [*RUN, "hf:me/set"], ["pull", "hf-hub:me/drips", "-o", "pulled"]]
    found = client.call(hurried, commands, HF_HUB_DOWNLOAD_TIMEOUT="1")
    for (status, _, err), why in zip(found, ["no answer in time"] * 2 + ["less than 1024 bytes per second"], strict=True):
        *said, last = err.splitlines()
        assert status == 2
        assert all(why in line for line in said)
        assert waits(said)[0] == "1 s"
        assert f"{why}, in " in last
        assert "attempts): run again later" in last


def test_what_is_known_serves_while_the_hub_is_silent(hub: HubServer, client: Client, card: Card) -> None:
    hub.repository("me/net", card.folder)
    assert client.command("run", NAME, "--limit", 10, "-o", "out").status == 0
    hub.faults.append(Fault("*", status=503))
    again = client.command("run", NAME, "--limit", 10, "-o", "again")
    assert again.status == 0, again.err
    assert "taking config.json of me/net as it was downloaded before" in again.err
    both = [json.loads(next((client.folder / run).glob("*/result.json")).read_text())["model"]["checkpoint"] for run in ("out", "again")]
    assert both[0] == both[1]


# Refused


def test_a_refusal_is_one_line_at_once(hub: HubServer, client: Client, card: Card) -> None:
    words = {
        401: "the Hub refuses me/s401 to this account (HTTP status 401",
        403: "the Hub refuses me/s403 to this account (HTTP status 403",
        404: "the Hub does not give me/s404 (HTTP status 404",
        422: "the Hub does not give me/s422 (HTTP status 422",
    }
    faults = {f"s{status}": Fault("*", status=status) for status in words}
    for answer, line in zip(several(hub, client, card, faults, "pull").values(), words.values(), strict=True):
        (said,) = failed(answer)
        assert line in said
        assert "network" not in said  # the Hub answered
    assert len(hub.asked) == len(words)


def test_a_repository_without_weights_is_said_to_have_none(hub: HubServer, client: Client, card: Card) -> None:
    hub.repository("me/net", {"config.json": (card.folder / "config.json").read_bytes()})
    for answer in client.commands(("pull", NAME, "-o", "pulled"), ("run", NAME)):
        (line,) = failed(answer)
        assert "got one without 'model.safetensors'" in line
        assert "me/net" in line
        assert "network" not in line


# Downloads


@pytest.fixture
def large(card: Card) -> bytes:
    """Weights of 3 MB for the card."""
    content = save({"x": torch.rand(750_000)})
    put_weights(card, content)
    return content


def got(hub: HubServer, repository: str) -> list[str]:
    """The ranges of the weights of a repository that were asked for."""
    return [asked.range for asked in hub.gets("model.safetensors") if repository in asked.path]


def test_a_download_that_is_cut_goes_on_where_it_stopped(hub: HubServer, client: Client, card: Card, large: bytes) -> None:
    hub.repository("me/net", card.folder)
    hub.faults.append(Fault(WEIGHTS, cut=1_000_000, times=2))
    hub.repository("me/broken", card.folder)
    hub.faults.append(Fault(WEIGHTS.replace("*", "*me/broken/*"), cut=1000))
    good, bad = client.commands(("pull", NAME, "-o", "pulled"), ("pull", "hf-hub:me/broken", "-o", "broken"))
    assert good.status == 0, good.err
    assert got(hub, "me/net") == ["", "bytes=1000000-", "bytes=2000000-"]
    assert "model.safetensors stopped after 1,000,000 bytes" in good.err
    assert (client.folder / "pulled" / "model.safetensors").read_bytes() == large

    assert "the same command goes on from here" in failed(bad)[-1]
    assert not (client.folder / "broken").exists()
    kept = len(got(hub, "me/broken")) * 1000
    hub.faults.clear()
    hub.asked.clear()
    assert client.command("pull", "hf-hub:me/broken", "-o", "broken").status == 0  # another process
    assert [asked.range for asked in hub.gets(".safetensors")] == [f"bytes={kept}-"]
    assert (client.folder / "broken" / "model.safetensors").read_bytes() == large
    assert not list((client.folder / "home").rglob("*.part"))


def test_another_content_than_the_hub_s_is_refused_and_not_kept(hub: HubServer, client: Client, card: Card) -> None:
    config = (card.folder / "config.json").read_bytes()
    contents = {"page": b"<!doctype html><p>Sign in", "size": b"another size", "hash": config.replace(b"digits", b"stigid")}
    words = ("got a web page (25 of", "got another content (12 of ", f"got another content ({len(config):,} of {len(config):,} bytes)")
    faults = {name: Fault("GET *config.json", content=content, times=1) for name, content in contents.items()}
    faults["weights"] = Fault(WEIGHTS, content=b"<html>", times=1)
    found = several(hub, client, card, faults, "pull", "--output=pulled-")
    for answer, text in zip(found.values(), [*words, "got a web page (6 of "], strict=True):
        (line,) = failed(answer)
        assert "with the size and hash that the Hub says" in line
        assert text in line
    again = client.commands(*[("pull", f"hf-hub:me/{name}", "-o", f"pulled-{name}") for name in faults])
    assert [answer.status for answer in again] == [0] * 4


def test_a_page_that_answers_for_the_hub_is_told_from_it(hub: HubServer, client: Client) -> None:
    hub.faults.append(Fault("*", content=b"<html>Sign in to this network"))
    (line,) = failed(client.command("show", NAME))
    assert "got an answer that is not the Hub's: check HF_ENDPOINT" in line


def test_a_revision_that_moves_between_two_requests_mixes_no_commits(hub: HubServer, client: Client, card: Card, tmp_path: Path) -> None:
    repository = hub.repository("me/net", card.folder)
    old = repository.head
    other = make_card(tmp_path / "other" / "cnn4.digits.mine", seed=1)
    files = {path.name: path.read_bytes() for path in other.folder.iterdir()}
    hub.faults.append(Fault("HEAD */config.json", then=lambda: repository.commit(files), times=1))
    assert client.command("pull", NAME, "-o", "pulled").status == 0
    pulled = Card.read(client.folder / "pulled")
    assert pulled.config.hub == f"me/net@{old}"
    assert (pulled.folder / "model.safetensors").read_bytes() == (card.folder / "model.safetensors").read_bytes()
    assert repository.head != old


# Data

RUN = ("run", "cnn4", "--checkpoint", "none", "--measure", "accuracy", "-o", "out", "--data")


def data(hub: HubServer, folder: Path, *names: str) -> None:
    """Data sets of four images."""
    for split in ("train", "test"):
        write_parquet(folder / f"{split}-0.parquet", [encoded(picture(k)) for k in range(4)], [0, 1] * 2, "ab")
    for name in names:
        hub.repository(f"me/{name}", folder, kind="datasets")


def test_data_that_are_cut_go_on(hub: HubServer, client: Client, tmp_path: Path) -> None:
    data(hub, tmp_path / "copy", "set")
    hub.faults.append(Fault("GET *test-0.parquet", cut=500, after=1, times=2))
    answer = client.command(*RUN, "hf:me/set")
    assert answer.status == 0, answer.err
    assert [asked.range for asked in hub.gets("test-0.parquet")][-3:] == ["", "bytes=500-", "bytes=1000-"]


def test_what_cannot_be_had_of_data_is_one_line(hub: HubServer, client: Client, tmp_path: Path) -> None:
    faults = {
        "busy": (Fault("*", status=503), "cannot reach the Hub for me/busy (HTTP status 503, in 6 attempts): run again later"),
        "asks": (Fault("*", status=429, headers={"Retry_After": "3600"}), "429; it asks to wait 3600 s (60 min)): run again after that"),
        "page": (Fault("GET *test-0.parquet", content=b"<html>"), "test-0.parquet"),
        "later": (Fault("GET *test-0.parquet", content=b"<html>", after=1), "with the size and hash that the Hub says, got a web page"),
        **{f"s{status}": (Fault("*", status=status), f"me/s{status}") for status in (401, 403, 404)},
    }
    data(hub, tmp_path / "copy", *faults)
    for name, (fault, _) in faults.items():
        fault.pattern = fault.pattern.replace("*", f"*me/{name}/*", 1)
        hub.faults.append(fault)
    found = client.commands(*[(*RUN, f"hf:me/{name}") for name in faults])
    for answer, (name, (_, words)) in zip(found, faults.items(), strict=True):
        *said, last = failed(answer)
        assert words in last
        assert len(said) == (5 if name == "busy" else 0)


# Publishing


def test_a_push_to_a_busy_hub_goes_on(hub: HubServer, client: Client) -> None:
    make_card(client.folder / "card")
    hub.faults += [Fault(pattern, status=503, times=1) for pattern in ("POST */repos/create", "PUT *", "POST */batch", "POST */commit/*")]
    answer = client.command("push", "card", "me/net", HF_TOKEN=TOKEN)
    assert answer.status == 0, answer.err
    assert answer.err.count("(HTTP status 503): waiting") == 4
    assert len(hub.repositories["models", "me/net"].commits) == 1


def test_a_push_that_gets_no_answer_says_where_to_look(hub: HubServer, client: Client) -> None:
    make_card(client.folder / "card")
    hub.faults.append(Fault("POST */commit/*", cut=5))
    last = failed(client.command("push", "card", "me/net", HF_TOKEN=TOKEN))[-1]
    assert "cannot publish me/net (" in last
    assert "the commit may have arrived, so look at the repository" in last
