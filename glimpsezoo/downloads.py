"""Files of the Hub in its client's cache: downloaded at one commit, resumed after any interruption, checked against the Hub's hash.

The client discards a partial download when its process ends, and does not compare what it got with the hash. So a file is downloaded here,
to the place in the cache where the client looks for it (`blobs/HASH`), and the client does the rest.
"""

import errno
import hashlib
import re
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from glimpsezoo.errors import GlimpseZooError
from glimpsezoo.files import write_whole
from glimpsezoo.waiting import UnansweredError, library_of, patience, reason, say

Kind = Literal["model", "dataset"]
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")  # of git, or SHA-256 of git-lfs


class WrongContentError(GlimpseZooError):
    """The Hub, or something between, gave another file than it should."""


@dataclass(frozen=True)
class _Remote:
    """A file at a commit, as the Hub describes it. Its hash is also its name in the cache."""

    name: str
    address: str
    commit: str
    hash: str
    size: int | None


def download(repository: str, file: str, revision: str | None = None, kind: Kind = "model") -> Path:
    """The copy of a file in the cache, in the folder of its commit; downloaded if it is not there.

    revision: a branch, tag or commit; None is the main branch. Without a network, a branch or tag is what it was when it was last seen.
    Raises what the client raises, and `GlimpseZooError`.
    """
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError

    known = try_to_load_from_cache(repository, file, revision=revision, repo_type=kind)
    pinned = bool(revision and _COMMIT.fullmatch(revision))
    if constants.HF_HUB_OFFLINE or (pinned and isinstance(known, str)):
        return Path(hf_hub_download(repository, file, revision=revision, repo_type=kind))
    if pinned and known is not None:  # the cache notes that the commit does not have it
        raise EntryNotFoundError(f"no file {file!r}")
    try:
        remote = _described(repository, file, revision, kind)
    except EntryNotFoundError:
        return Path(hf_hub_download(repository, file, revision=revision, repo_type=kind))  # fails, too, and notes it in the cache
    except UnansweredError as error:
        if not isinstance(known, str):
            raise
        say(f"the Hub does not answer ({error.why}): taking {file} of {repository} as it was downloaded before")
        return Path(known)
    folder = Path(constants.HF_HUB_CACHE) / f"{kind}s--{repository.replace('/', '--')}"
    blob = folder / "blobs" / remote.hash
    if not blob.exists():
        _fill(remote, blob)
    if not pinned:  # the cache notes which commit a branch or tag is
        ref = folder / "refs" / (revision or "main")
        if not ref.is_file() or ref.read_text() != remote.commit:  # a cache that many share may be read-only
            ref.parent.mkdir(parents=True, exist_ok=True)
            write_whole(ref, remote.commit.encode())
    return Path(hf_hub_download(repository, file, revision=remote.commit, repo_type=kind))


def _described(repository: str, file: str, revision: str | None, kind: Kind) -> _Remote:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    found = get_hf_file_metadata(hf_hub_url(repository, file, repo_type=kind, revision=revision))
    if not found.commit_hash or not found.etag or not _HASH.fullmatch(found.etag):
        raise WrongContentError(
            f"expected the file {file!r} of {repository} from the Hub, got an answer that is not the Hub's: check HF_ENDPOINT, and whether "
            "this network asks you to sign in"
        )
    address = hf_hub_url(repository, file, repo_type=kind, revision=found.commit_hash)
    return _Remote(file, address, found.commit_hash, found.etag, found.size)


def _fill(remote: _Remote, blob: Path) -> None:
    """Download a file to its place in the cache. What an interrupted download got stays beside it, and the next one goes on from there."""
    from filelock import FileLock, Timeout

    lock = FileLock(blob.parents[2] / ".locks" / blob.parents[1].name / f"{blob.name}.lock")  # the client's own lock for this file
    Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
    blob.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"another process downloads {remote.name}: waiting for it")
        lock.acquire()
    try:
        part = blob.with_name(f"{blob.name}.part")
        if not blob.exists():
            _append(remote, part)
            _check(remote, part)
            part.replace(blob)
    finally:
        lock.release()


def _check(remote: _Remote, part: Path) -> None:
    """Delete a download whose hash is not the Hub's, and raise `WrongContentError`."""
    if has_hash(part, remote.hash):
        return
    size, what = part.stat().st_size, "a web page" if _start(part) == b"<" else "another content"
    part.unlink()
    raise WrongContentError(
        f"expected {remote.name!r} with the size and hash that the Hub says, got {what} ({size:,} of {remote.size or 0:,} bytes), now "
        "deleted: run again, and check HF_ENDPOINT, and whether this network asks you to sign in"
    )


def _append(remote: _Remote, part: Path) -> None:
    """Append the missing rest of a file to what there is."""
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status, tqdm

    have = part.stat().st_size if part.exists() else 0
    if remote.size is not None and have > remote.size:
        part.unlink()
        have = 0
    free = shutil.disk_usage(part.parent).free
    if remote.size is not None and free < remote.size - have:
        raise OSError(errno.ENOSPC, f"{free / 1e6:.0f} MB free")
    headers = build_hf_headers(headers={"Accept-Encoding": "identity"})
    with tqdm(total=remote.size, initial=have, unit="B", unit_scale=True, desc=remote.name, disable=None) as bar:
        while remote.size is None or have < remote.size:
            began, session = time.monotonic(), get_session()
            rest = {"Range": f"bytes={have}-"} if have else {}
            try:
                with session.stream("GET", remote.address, headers={**headers, **rest}) as response:
                    hf_raise_for_status(response)
                    goes_on = response.status_code == 206
                    with part.open("ab" if goes_on else "wb", buffering=0) as target:
                        have = have if goes_on else 0
                        bar.update(have - bar.n)
                        for chunk in response.iter_bytes():
                            target.write(chunk)
                            have += len(chunk)
                            bar.update(len(chunk))
                return
            except library_of(session).TransportError as error:
                have = part.stat().st_size if part.exists() else 0
                patience.wait(f"{remote.name} stopped after {have:,} bytes: {reason(error)}", since=began)


def _start(path: Path) -> bytes:
    """The first byte of a file that is not white space."""
    with path.open("rb") as stream:
        return stream.read(1024).lstrip()[:1]


def has_hash(path: Path, expected: str) -> bool:
    """Whether a file has a SHA-256 (64 digits), or the SHA-1 by which git names its content (40 digits)."""
    with path.open("rb") as stream:
        if len(expected) == 64:
            return hashlib.file_digest(stream, "sha256").hexdigest() == expected
        start = hashlib.sha1(b"blob %d\0" % path.stat().st_size)
        return hashlib.file_digest(stream, lambda: start).hexdigest() == expected


def in_cache(path: Path) -> bool:
    """Whether a file is in the cache of the Hub's client."""
    from huggingface_hub import constants

    return path.resolve().is_relative_to(Path(constants.HF_HUB_CACHE).resolve())


def forget(path: Path) -> None:
    """Delete a file of the cache, so that it is downloaded again."""
    with suppress(OSError):
        path.resolve().unlink()
