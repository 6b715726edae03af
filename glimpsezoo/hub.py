"""The Hugging Face Hub, as far as cards need it: one file at a commit, weights by their hash, and one commit that holds a card.

Everything goes through huggingface_hub, and so through HF_ENDPOINT, HF_TOKEN, HF_HOME and HF_HUB_OFFLINE. Nothing that comes from there
is executed: files are JSON, Parquet and safetensors.
"""

import errno
import hashlib
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from glimpsezoo.errors import GlimpseZooError, one_line

PREFIX = "hf-hub:"
BLOCK = 4 * 2**20  # bytes of weights that one request asks for: what a cut download may have to ask for again
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9][\w./-]*", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_LOG_IN = "log in by 'hf auth login' (or set HF_TOKEN)"


@dataclass(frozen=True)
class Repository:
    """A model repository of the Hub, OWNER/NAME, at a branch, tag or commit; None is its main branch."""

    name: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Repository":
        """From `[hf-hub:]OWNER/NAME[@REVISION]`. Raises `GlimpseZooError` for anything else.

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
        """Whether the revision is a whole commit, of which nothing can change."""
        return bool(self.revision and _COMMIT.fullmatch(self.revision))

    @property
    def page(self) -> str:
        from huggingface_hub import constants

        return f"{constants.ENDPOINT}/{self.name}"


@dataclass(frozen=True)
class Blob:
    """A file whose content is known before it is fetched. size: in bytes."""

    file: str
    sha256: str
    size: int


def fetch(place: Repository, file: str) -> tuple[Path, Repository]:
    """A small file of a repository, and the repository at the commit that it is of; from the cache where the Hub cannot be asked.

    Raises `GlimpseZooError`.
    """
    from huggingface_hub import hf_hub_download

    with said(place):
        path = Path(hf_hub_download(place.name, file, revision=place.revision))
    return path, replace(place, revision=path.parent.name)  # the cache keeps it in snapshots/COMMIT


def fetch_if_there(place: Repository, file: str) -> Path | None:
    """As `fetch`; None for a file that the repository does not hold, or that was not downloaded before and cannot be now."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    with said(place):
        try:
            return Path(hf_hub_download(place.name, file, revision=place.revision))
        except EntryNotFoundError:
            return None


def fetch_blob(place: Repository, blob: Blob) -> Path:
    """A large file, by its hash: from the cache if it is there, or else downloaded, going on where an earlier download was cut.

    The client forgets what it has of a file when its process ends, so parts are kept here, in its cache for assets. place: at a commit.
    Raises `GlimpseZooError`, also for content of another hash.
    """
    from filelock import FileLock
    from huggingface_hub import cached_assets_path, try_to_load_from_cache

    known = try_to_load_from_cache(place.name, blob.file, revision=place.revision)
    if isinstance(known, str) and sha256_of(Path(known)) == blob.sha256:
        return Path(known)
    with said(place, blob.size):
        folder = cached_assets_path("glimpsezoo", namespace="weights", subfolder=blob.sha256)
        whole, part = folder / "content", folder / "part"
        with FileLock(folder / "lock"):
            if whole.is_file() and sha256_of(whole) == blob.sha256:
                return whole
            _download(place, blob, part)
            if sha256_of(part) != blob.sha256:
                part.unlink()
                raise GlimpseZooError(
                    f"{place.name} holds another {blob.file!r} than its card names (another sha256): name another @revision"
                )
            part.replace(whole)
    return whole


def _download(place: Repository, blob: Blob, part: Path) -> None:
    """Append to `part` what it lacks of the file, a block for every request."""
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
    files = HfFileSystem(skip_instance_cache=True)  # one that is kept remembers failures
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
    """Put files into a repository by one commit, making the repository if there is none; returns the commit's address.

    replacing: whether what is there may be replaced (the Hub keeps it as an earlier commit). Raises `GlimpseZooError`, also if it is to
    be private and is public.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    with said(place, publishing=True):
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


@contextmanager
def said(place: Repository, size: int | None = None, *, publishing: bool = False) -> Iterator[None]:
    """What goes wrong with a repository, as one line that says what to do. size: bytes wanted. Raises `GlimpseZooError`."""
    try:
        yield
    except GlimpseZooError:
        raise
    except Exception as error:  # the client, and the two libraries below it that it has had so far, raise what they like
        raise GlimpseZooError(_explained_publishing(place, error) if publishing else _explained(place, size, error)) from error


def _explained(place: Repository, size: int | None, error: Exception) -> str:
    """One line: what was expected, what was got, what to do."""
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    name, chain = place.name, list(_causes(error))
    if any(isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT) for cause in chain):
        needed = f", which takes {size / 1e6:.0f} MB" if size else ""
        return f"the disk is full, downloading {name}{needed}: free some space, or set HF_HOME to another disk, then run again"
    if isinstance(error, GatedRepoError):
        return f"{name} is gated, and this account has no access: accept its terms at {place.page}, {_LOG_IN}, then run again"
    if isinstance(error, RevisionNotFoundError):
        return f"expected a branch, tag or commit of {name}, got {place.revision!r}, which is none: see {place.page}/commits/main"
    if isinstance(error, RepositoryNotFoundError):
        return f"expected a model repository of the Hub, got {name!r}, which does not exist or is private: check its name, or {_LOG_IN}"
    if _offline(chain):
        return f"{place} was not downloaded before, and HF_HUB_OFFLINE forbids to do it now: unset it, or name a card on disk"
    if isinstance(error, EntryNotFoundError) and not isinstance(error, FileNotFoundError):
        return f"expected a card of glimpsezoo in the repository {place}, got one without its files: see {place.page}/tree/main"
    if _refused(chain):
        return f"the Hub refuses {name} to this account ({_why(chain)}): {_LOG_IN} with a token that may read it"
    return f"cannot get {name} from the Hub ({_why(chain)}): check the network (and HF_ENDPOINT); the same command goes on from here"


def _explained_publishing(place: Repository, error: Exception) -> str:
    from huggingface_hub.errors import LocalTokenNotFoundError

    chain = list(_causes(error))
    if _offline(chain):
        return f"cannot publish {place.name}, for HF_HUB_OFFLINE forbids it: unset it"
    if isinstance(error, LocalTokenNotFoundError) or _refused(chain):
        return f"the Hub does not let this account write {place.name!r} ({_why(chain)}): {_LOG_IN} with a token that may write there"
    return f"cannot publish {place.name} ({_why(chain)}): check the network (and HF_ENDPOINT), then run again"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it came from, from the last to the first."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        yield error
        error = error.__cause__ or error.__context__


def _offline(chain: list[BaseException]) -> bool:
    from huggingface_hub.errors import OfflineModeIsEnabled

    return any(isinstance(cause, OfflineModeIsEnabled) for cause in chain)


def _refused(chain: list[BaseException]) -> bool:
    """Whether the Hub answered that this account may not."""
    return any(getattr(getattr(cause, "response", None), "status_code", None) in (401, 403) for cause in chain)


def _why(chain: list[BaseException]) -> str:
    """The Hub's answer, or else the first error, at most 160 characters of it: what came later says that something came before."""
    for cause in chain:
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if status is not None:
            said_there = getattr(cause, "server_message", None)
            return f"HTTP status {status}" + (f": {' '.join(said_there.split()):.120}" if said_there else "")
    return f"{one_line(chain[-1]):.160}"
