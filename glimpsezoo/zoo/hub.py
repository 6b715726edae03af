"""Cards on the Hugging Face Hub: fetches a file at a commit, fetches weights by their hash, and publishes a card as one commit.

Everything goes through huggingface_hub and therefore obeys HF_ENDPOINT, HF_TOKEN, HF_HOME and HF_HUB_OFFLINE. Nothing from the Hub is
executed: files are JSON, Parquet and safetensors.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from glimpsezoo.downloads import download, forget
from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.hashing import sha256_of
from glimpsezoo.hub import page, publishing_model, reading_model

PREFIX = "hf-hub:"
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9][\w./-]*", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Repository:
    """A model repository of the Hub."""

    name: str
    """OWNER/NAME."""
    revision: str | None = None
    """A branch, tag or commit; None is the main branch."""

    @classmethod
    def parse(cls, text: str) -> "Repository":
        """Parse `[hf-hub:]OWNER/NAME[@REVISION]`. Raises `GlimpseZooError` for anything else.

        >>> Repository.parse("hf-hub:me/mgnet.digits@v1")
        Repository(name='me/mgnet.digits', revision='v1')
        """
        name, at, revision = text.removeprefix(PREFIX).partition("@")
        wrong = not _NAME.fullmatch(name) or (at and not _REVISION.fullmatch(revision)) or ".." in text
        if wrong:
            raise GlimpseZooError(f"expected a repository of the Hub as {PREFIX}OWNER/NAME[@REVISION], got {text!r}: take it from its page")
        return cls(name, revision or None)

    def __str__(self) -> str:
        return self.name + (f"@{self.revision}" if self.revision else "")

    @property
    def at_commit(self) -> bool:
        """Whether the revision is a full commit hash, so that its content cannot change."""
        return bool(self.revision and _COMMIT.fullmatch(self.revision))

    @property
    def page(self) -> str:
        """Its address on the Hub."""
        return page(self.name)


@dataclass(frozen=True)
class Blob:
    """A file with a known hash."""

    file: str
    """Its path in the repository."""
    sha256: str
    size: int
    """In bytes."""


def fetch(place: Repository, file: str) -> tuple[Path, Repository]:
    """Fetch a file; returns its path, and the repository at the file's commit. Offline, the file comes from the cache.

    Raises `GlimpseZooError`.
    """
    with reading_model(place.name, file, place.revision):
        path = download(place.name, file, place.revision)
    return path, replace(place, revision=path.parent.name)  # the cache has it in snapshots/COMMIT


def fetch_if_there(place: Repository, file: str) -> Path | None:
    """As `fetch`, but None if the repository does not have the file, or if it is neither cached nor available."""
    from huggingface_hub.errors import EntryNotFoundError

    with reading_model(place.name, file, place.revision):
        try:
            return download(place.name, file, place.revision)
        except EntryNotFoundError:
            return None


def fetch_blob(place: Repository, blob: Blob) -> Path:
    """Fetch a large file by its hash: from the cache, or by resuming or starting a download. place: at a commit.

    Raises `GlimpseZooError`, also if the content has another hash.
    """
    for _ in range(2):
        with reading_model(place.name, blob.file, place.revision, blob.size):
            path = download(place.name, blob.file, place.revision)
        if sha256_of(path) == blob.sha256:
            return path
        if path.resolve().name != blob.sha256:  # which is the hash that the Hub says
            break
        forget(path)  # damaged since it was downloaded
    raise GlimpseZooError(f"{place.name} has another {blob.file!r} than its card names (another sha256): name another @revision")


def publish(
    place: Repository, files: Mapping[str, Path | bytes], *, without: Iterable[str] = (), private: bool = False, replacing: bool = False
) -> str:
    """Publish files as one commit, creating the repository if necessary; returns the commit's address.

    replacing: whether an existing card may be replaced (the Hub keeps it as an earlier commit). without: what that card may have and this
    one has not. Raises `GlimpseZooError`, also if `private` is requested and the repository is public.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi()
    with publishing_model(place.name):
        api.create_repo(place.name, private=private or None, exist_ok=True)
        if private and not api.model_info(place.name).private:
            raise GlimpseZooError(f"expected a private repository, got {place.name!r}, which is public: change it at {place.page}/settings")
        has_card = api.file_exists(place.name, "config.json")
        if has_card and not replacing:
            raise GlimpseZooError(
                f"expected a repository without a card, got {place.name!r} with one: name another, or --force (the old commit stays)"
            )
        there = api.list_repo_files(place.name) if has_card else []
        operations = [
            *(CommitOperationAdd(name, content if isinstance(content, bytes) else str(content)) for name, content in files.items()),
            *(CommitOperationDelete(name) for name in without if name in there),
        ]
        return api.create_commit(place.name, operations, commit_message="Upload a card of glimpsezoo").commit_url
