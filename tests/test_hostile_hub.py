"""What comes from the Hub or goes to it: names of files lead nowhere else, and a published card says only what it says."""

import re
from pathlib import Path

import yaml
from command_line import make_card, rewrite
from data_files import encoded, picture, write_parquet
from hub_client import Client
from hub_server import TOKEN, HubServer
from test_escaping import EVIL, hidden


def test_a_listing_of_the_hub_leads_to_no_file_elsewhere(hub: HubServer, client: Client, tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_parquet(tmp_path / "copy" / f"{split}-0.parquet", [encoded(picture(k)) for k in range(20)], [0, 1] * 10, "ab")
    files = {path.name: path.read_bytes() for path in (tmp_path / "copy").iterdir()}
    names = ("../../../../escaped.parquet", "..%2f..%2fescaped.parquet", "x/../../../../../escaped-0.parquet", "\x1b[2Jescaped.parquet")
    hub.repository("me/set", files | dict.fromkeys(names, files["test-0.parquet"]), kind="datasets")
    answer = client.command("show", "hf:me/set")
    assert answer.status in (0, 2)
    assert "Traceback" not in answer.err
    assert hidden(answer.out + answer.err) <= {"\n"}
    home = tmp_path / "home"
    assert [path for path in tmp_path.rglob("*escaped*") if not path.is_relative_to(home)] == []
    assert {path.name for path in tmp_path.iterdir()} <= {"home", "copy"}


def test_a_published_card_has_no_key_and_no_link_of_a_stranger(hub: HubServer, client: Client, tmp_path: Path) -> None:
    card = make_card(tmp_path / "c")
    trained = {"command": f"{EVIL}```", "minutes": 1.0, "machine": EVIL, "torch": EVIL, "notes": [EVIL]}
    rewrite(card, data={"name": "digits", "settings": {EVIL: EVIL}}, trained=trained)
    answer = client.command("push", str(card.folder), "me/c", HF_TOKEN=TOKEN)
    assert answer.status == 0, answer.err
    assert TOKEN not in answer.out + answer.err
    text = hub.repositories["models", "me/c"].commits[-1][1]["README.md"].decode()
    head, body = re.fullmatch(r"---\n(.*?)\n---\n(.*)", text, re.DOTALL).groups()  # type: ignore[union-attr]
    assert yaml.safe_load(head)["license"] == "apache-2.0"
    assert "evil" not in str(yaml.safe_load(head))
    assert "<script" not in re.sub("```.*?```", "", body, flags=re.DOTALL)
