"""Cards on the Hugging Face Hub: fetches a file at a commit, fetches weights by their hash, and publishes a card as one commit.

Everything goes through huggingface_hub and therefore obeys HF_ENDPOINT, HF_TOKEN, HF_HOME and HF_HUB_OFFLINE. Nothing from the Hub is
executed: files are JSON, Parquet and safetensors.
"""

import errno
import hashlib
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.hub import page, publishing_model, reading_model

PREFIX = "hf-hub:"
BLOCK = 4 * 2**20  # bytes per request for weights: the most that an interrupted download has to repeat
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
    """Fetch a small file; returns its path, and the repository at the file's commit. Offline, the file comes from the cache.

    Raises `GlimpseZooError`.
    """
    from huggingface_hub import hf_hub_download

    with reading_model(place.name, place.revision):
        path = Path(hf_hub_download(place.name, file, revision=place.revision))
    return path, replace(place, revision=path.parent.name)  # the cache has it in snapshots/COMMIT


def fetch_if_there(place: Repository, file: str) -> Path | None:
    """As `fetch`, but None if the repository does not have the file, or if it is neither cached nor available."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    with reading_model(place.name, place.revision):
        try:
            return Path(hf_hub_download(place.name, file, revision=place.revision))
        except EntryNotFoundError:
            return None


def fetch_blob(place: Repository, blob: Blob) -> Path:
    """Fetch a large file by its hash: from the cache, or by resuming or starting a download. place: at a commit.

    The client discards partial downloads when its process ends, so they are kept here, in its cache for assets.
    Raises `GlimpseZooError`, also if the content has another hash.
    """
    from filelock import FileLock
    from huggingface_hub import cached_assets_path, try_to_load_from_cache

    known = try_to_load_from_cache(place.name, blob.file, revision=place.revision)
    if isinstance(known, str) and sha256_of(Path(known)) == blob.sha256:
        return Path(known)
    with reading_model(place.name, place.revision, blob.size):
        folder = cached_assets_path("glimpsezoo", namespace="weights", subfolder=blob.sha256)
        whole, part = folder / "content", folder / "part"
        with FileLock(folder / "lock"):
            if whole.is_file() and sha256_of(whole) == blob.sha256:
                return whole
            _download(place, blob, part)
            if sha256_of(part) != blob.sha256:
                part.unlink()
                raise GlimpseZooError(
                    f"{place.name} has another {blob.file!r} than its card names (another sha256): name another @revision"
                )
            part.replace(whole)
    return whole


def _download(place: Repository, blob: Blob, part: Path) -> None:
    """Append the missing rest of the file to `part`, one block per request."""
    from huggingface_hub import HfFileSystem
    from huggingface_hub.utils import tqdm

    have = part.stat().st_size if part.exists() else 0
    if have > blob.size:
        part.unlink()
        have = 0
    free = shutil.disk_usage(part.parent).free
    if free < blob.size - have:
        raise OSError(errno.ENOSPC, f"{free / 1e6:.0f} MB free")
    if have == blob.size:
        return
    files = HfFileSystem(skip_instance_cache=True)  # a cached instance would remember failures
    path = f"{place.name}@{place.revision}/{blob.file}"
    with (
        files.open(path, "rb", block_size=BLOCK, cache_options={}, cache_type="none") as source,
        part.open("ab", buffering=0) as target,
        tqdm(total=blob.size, initial=have, unit="B", unit_scale=True, desc=blob.file, disable=None) as bar,
    ):
        source.seek(have)
        while have < blob.size and (content := source.read(min(BLOCK, blob.size - have))):
            assert isinstance(content, bytes)
            target.write(content)
            have += len(content)
            bar.update(len(content))


def publish(place: Repository, files: Mapping[str, Path | bytes], *, private: bool = False, replacing: bool = False) -> str:
    """Publish files as one commit, creating the repository if necessary; returns the commit's address.

    replacing: whether an existing card may be replaced (the Hub keeps it as an earlier commit). Raises `GlimpseZooError`, also if
    `private` is requested and the repository is public.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    with publishing_model(place.name):
        api.create_repo(place.name, private=private or None, exist_ok=True)
        if private and not api.model_info(place.name).private:
            raise GlimpseZooError(f"expected a private repository, got {place.name!r}, which is public: change it at {place.page}/settings")
        if not replacing and api.file_exists(place.name, "config.json"):
            raise GlimpseZooError(
                f"expected a repository without a card, got {place.name!r} with one: name another, or --force (the old commit stays)"
            )
        operations = [CommitOperationAdd(name, content if isinstance(content, bytes) else str(content)) for name, content in files.items()]
        return api.create_commit(place.name, operations, commit_message="Upload a card of glimpsezoo").commit_url


def sha256_of(path: Path) -> str:
    """The hash of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
