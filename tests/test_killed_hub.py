"""`pull` and `push`, killed at changes of the file system and of the Hub: the same command again ends as if nothing had happened."""

import json
from pathlib import Path

import pytest
from command_line import make_card, tree
from hub_server import TOKEN, HubServer
from killed import KILLED, kill_everywhere

from glimpsezoo.zoo.card_config import CONFIG

SHIPPED = Path(__file__).parents[1] / "zoo_cards" / "cnn4.digits"
CLIENT = "import huggingface_hub.utils"  # which a command imports when it needs it
pytestmark = pytest.mark.repository


@pytest.fixture
def as_user(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a user of this Hub, whose caches are below the working directory."""
    for name, value in {**hub.environment(Path("home")), "HF_TOKEN": TOKEN}.items():
        monkeypatch.setenv(name, value)


def half_written(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.name.endswith((".part", ".incomplete"))]


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize("most", [6, pytest.param(None, marks=pytest.mark.slow)])
def test_a_pull_that_is_killed_goes_on_with_what_it_has(hub: HubServer, tmp_path: Path, most: int | None) -> None:
    hub.repository("me/net", SHIPPED)
    whole, cases = kill_everywhere(tmp_path, ["pull", "hf-hub:me/net", "-o", "mine"], most=most, setup=CLIENT)
    assert whole.status == 0, whole.err
    expected = tree(tmp_path / "whole/mine")
    assert expected.keys() == tree(SHIPPED).keys()
    for case in cases:
        finished = (case.left / "mine" / CONFIG).is_file()
        assert case.killed.status == KILLED, case
        assert case.again.status == 0 or (finished and "with one: choose another --output" in case.again.err), case
        assert tree(case.folder / "mine") == expected, case
        assert half_written(case.folder) == case.temporary == [], case


@pytest.mark.slow
@pytest.mark.usefixtures("as_user")
def test_a_card_that_a_killed_pull_was_to_replace_is_the_old_one_or_the_new_in_the_end(hub: HubServer, tmp_path: Path) -> None:
    hub.repository("me/net", SHIPPED)
    make_card(tmp_path / "begin" / "mine")
    whole, cases = kill_everywhere(tmp_path, ["pull", "hf-hub:me/net", "-o", "mine", "--force"], setup=CLIENT)
    assert whole.status == 0, whole.err
    old, new = (json.loads((tmp_path / name / "mine" / CONFIG).read_text()) for name in ("begin", "whole"))
    for case in cases:
        assert (case.killed.status, case.again.status) == (KILLED, 0), case
        left = case.left / "mine" / CONFIG
        assert not left.is_file() or json.loads(left.read_text()) in (old, new), case
        assert tree(case.folder / "mine") == tree(tmp_path / "whole/mine"), case


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize("most", [6, pytest.param(None, marks=pytest.mark.slow)])
def test_a_push_that_is_killed_publishes_all_or_nothing_and_goes_on(hub: HubServer, tmp_path: Path, most: int | None) -> None:
    (tmp_path / "begin").mkdir()
    (tmp_path / "begin/card").symlink_to(SHIPPED)
    whole, cases = kill_everywhere(tmp_path, ["push", "card", "me/{folder}"], most=most, setup=CLIENT)
    assert whole.status == 0, whole.err

    def published(name: str) -> dict[str, bytes]:
        (commit,) = hub.repositories["models", f"me/{name}"].commits  # one, with everything
        return {file: content.replace(f"me/{name}".encode(), b"me/net") for file, content in commit[1].items()}

    expected = published("whole")
    assert expected.keys() == tree(SHIPPED).keys()
    for case in cases:
        assert case.killed.status == KILLED, case
        assert case.again.status == 0 or "with one: name another, or --force (the old commit stays)" in case.again.err, case
        assert published(case.folder.name) == expected, case
        assert tree(case.folder / "card") == tree(SHIPPED)
        assert half_written(case.folder) == case.temporary == [], case
