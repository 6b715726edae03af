"""Cards whose weights are in the authors' own repository on the Hub, which is no card: pinned by its commit and by the hash of the file."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import make_card, rewrite
from hub_client import Client
from hub_server import HubServer, Repository

import glimpsezoo as gz
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.zoo.cards import Card

REPOSITORY = "them/net"


def card_without_weights(client: Client, repository: Repository, model: str = "cnn4", **settings: Any) -> Card:
    """MODEL.digits in the client's zoo, with the weights of the repository at its first commit."""
    card = make_card(client.folder / "zoo_cards" / f"{model}.digits", model, **settings)
    (card.folder / "model.safetensors").unlink()
    rewrite(card, weights=None, hub=f"{REPOSITORY}@{repository.commits[0][0]}", released=True)
    return card


@pytest.fixture
def theirs(hub: HubServer, tmp_path: Path) -> Repository:
    """The weights of a cnn4 beside a config.json that is not ours."""
    weights = (make_card(tmp_path / "made", seed=3).folder / "model.safetensors").read_bytes()
    return hub.repository(REPOSITORY, {"config.json": b'{"layers": 4}', "model.safetensors": weights, "model.bin": b"a pickle"})


def checkpoint(client: Client) -> Any:
    (result,) = (client.folder / "out").glob("*/result.json")
    return json.loads(result.read_text())["model"]["checkpoint"]


def loaded(name: str, **settings: str) -> Any:
    """In a client: the sum of the first tensor of a model, or the one-line error."""
    try:
        return next(gz.load(name, **settings).parameters()).sum().item()
    except GlimpseZooError as error:
        return str(error)


def test_the_weights_are_those_of_the_commit_and_recorded_and_then_used_without_a_network(
    hub: HubServer, client: Client, theirs: Repository
) -> None:
    card_without_weights(client, theirs)
    commit, files = theirs.commits[0]
    theirs.commit({"model.safetensors": b"newer"})
    run = ("run", "cnn4", "--limit", 20, "-o", "out", "--force", "--fresh")
    first = client.command(*run)
    assert first.status == 0, first.err
    expected = {"uri": f"hf-hub:{REPOSITORY}", "revision": commit, "sha256": hashlib.sha256(files["model.safetensors"]).hexdigest()}
    assert checkpoint(client) == expected
    assert not [asked for asked in hub.asked if asked.method == "GET" and asked.path.endswith((".bin", "config.json"))]
    hub.asked.clear()
    again = client.command(*run, HF_HUB_OFFLINE="1")
    assert (again.status, again.out, hub.asked) == (0, first.out, [])


def test_a_hash_in_the_card_is_kept(client: Client, theirs: Repository) -> None:
    card, (_, files) = card_without_weights(client, theirs), theirs.commits[0]
    weights = {"file": "model.safetensors", "sha256": hashlib.sha256(files["model.safetensors"]).hexdigest()}
    rewrite(card, weights={**weights, "bytes": len(files["model.safetensors"])})
    assert isinstance(client.call(loaded, "cnn4"), float)
    rewrite(card, weights={**weights, "sha256": "0" * 64, "bytes": len(files["model.safetensors"])})
    assert "another sha256" in client.call(loaded, "cnn4")


def test_a_damaged_download_is_found_and_fetched_again(client: Client, theirs: Repository) -> None:
    card_without_weights(client, theirs)
    whole = client.call(loaded, "cnn4")
    (stored,) = (client.folder / "home").rglob("blobs/" + hashlib.sha256(theirs.commits[0][1]["model.safetensors"]).hexdigest())
    stored.write_bytes(stored.read_bytes()[:-1] + b"x")
    assert client.call(loaded, "cnn4").endswith("got a damaged file, now deleted: run again")
    assert client.call(loaded, "cnn4") == whole


def test_a_commit_that_is_not_there_is_one_line(client: Client, theirs: Repository) -> None:
    rewrite(card_without_weights(client, theirs), hub=f"{REPOSITORY}@{'0' * 40}")
    error = client.call(loaded, "cnn4")
    assert error.startswith(f"card 'cnn4.digits' takes its weights from {REPOSITORY}@{'0' * 40}, a revision that the repository does not")
    assert "--set revision=REVISION" in error
    assert f"/{REPOSITORY}/commits/main" in error


# CanViT, from what the authors' package writes


def of_package(folder: str, repository: str, revision: str | None) -> tuple[Any, Any]:
    """In a client: the logits of three looks by our model from the card, and by the package from the repository; or the error."""
    import torch
    from canvit_pytorch import CanViTForImageClassification, Viewpoint, sample_at_viewpoint
    from glimpsezoo_canvit.model import CanViT

    settings = {"revision": revision} if revision else {}
    try:
        model = CanViT.from_pretrained(Path(folder), policy="whole", glimpses=3, **settings)
    except GlimpseZooError as error:
        return str(error), None
    twin = CanViTForImageClassification.from_pretrained(repository, revision=revision).eval()
    images = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    view, state = Viewpoint.full_scene(batch_size=2, device=None), twin.init_state(batch_size=2, canvas_grid_size=4)
    scene = ((images - model.task.mean[0]) / model.task.std[0]).expand(-1, 3, -1, -1)
    with torch.no_grad():
        ours = gz.rollout(model, images).logits
        for _ in range(3):
            glimpse = sample_at_viewpoint(spatial=scene, viewpoint=view, glimpse_size_px=32)
            logits, state = twin(glimpse=glimpse, state=state, viewpoint=view)
    return ours.tolist(), logits.tolist()


@pytest.fixture
def released(tmp_path: Path) -> Callable[[int], dict[str, bytes]]:
    """Files of a tiny CanViT by the authors' `save_pretrained`, with weights from a seed."""
    pytest.importorskip("canvit_pytorch")
    import torch
    from canvit_pytorch import CanViTForImageClassification
    from glimpsezoo_canvit.model import architecture

    def make(seed: int) -> dict[str, bytes]:
        config = architecture(gz.create_model("canvit", data="digits").config)
        torch.manual_seed(seed)
        CanViTForImageClassification(canvit_config=config, n_classes=10).save_pretrained(tmp_path / str(seed))
        return {path.name: path.read_bytes() for path in (tmp_path / str(seed)).iterdir()}

    return make


def test_canvit_takes_what_the_authors_released(hub: HubServer, client: Client, released: Callable[[int], dict[str, bytes]]) -> None:
    repository = hub.repository(REPOSITORY, released(1))
    repository.tags["v2"] = repository.commit(released(2))
    card = card_without_weights(client, repository, "canvit")
    pinned = client.call(of_package, str(card.folder), REPOSITORY, repository.commits[0][0])
    tagged = client.call(of_package, str(card.folder), REPOSITORY, "v2")
    assert None not in (pinned[1], tagged[1]), (pinned, tagged)
    assert tagged[0] == [pytest.approx(row, abs=1e-5) for row in tagged[1]]
    assert pinned[0] == [pytest.approx(row, abs=1e-5) for row in pinned[1]]
    assert pinned[0] != tagged[0]

    answer = client.command("run", "canvit", "--limit", 20, "--set", "revision=v2", "-o", "out")
    assert answer.status == 0, answer.err
    sha256 = hashlib.sha256(repository.commits[1][1]["model.safetensors"]).hexdigest()
    assert checkpoint(client) == {"uri": f"hf-hub:{REPOSITORY}", "revision": repository.tags["v2"], "sha256": sha256}
    wrong = client.command("run", "canvit", "--limit", 20, "--set", "revision=v3")
    assert (wrong.status, wrong.err.count("\n"), f"{REPOSITORY}@v3, a revision that" in wrong.err) == (2, 1, True)


def test_tensors_of_another_layout_are_refused_in_one_line(
    hub: HubServer, client: Client, released: Callable[[int], dict[str, bytes]]
) -> None:
    """As in the files for canvit-pytorch 0.1."""
    from safetensors.torch import load, save

    tensors = {name.replace("canvas_reads.", "canvas_read."): tensor for name, tensor in load(released(1)["model.safetensors"]).items()}
    repository = hub.repository(REPOSITORY, {"model.safetensors": save(tensors)})
    card_without_weights(client, repository, "canvit")
    error = client.call(loaded, "canvit")
    assert "do not fit its model: tensor canvit.canvas_reads.0" in error
    assert "\n" not in error
