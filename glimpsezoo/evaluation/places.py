"""Places for small files that several processes and machines share: a folder, or a URL that fsspec can write (s3://bucket/units)."""

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from glimpsezoo.errors import GlimpseZooError, one_line, why_not
from glimpsezoo.files import is_full, write_whole
from glimpsezoo.processes import machine

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # a drive (C:) has one letter
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs"}  # protocol -> the package that brings it
_FLAT = {"s3", "s3a", "gs", "gcs", "abfs", "az"}  # protocols without folders, where making one would make a bucket


class Place(ABC):
    """What a store needs of a place. Names are relative, with at most one '/'. Every method raises `GlimpseZooError` if it cannot."""

    shown: str
    """What users are told: a path, or a URL without credentials."""

    @abstractmethod
    def has(self, name: str) -> bool: ...

    @abstractmethod
    def read(self, name: str) -> bytes | None:
        """The content; None if there is no such file."""

    @abstractmethod
    def write(self, name: str, content: bytes) -> None:
        """Write a file; readers see the old content or the new, as far as the place can promise that."""

    @abstractmethod
    def create(self, name: str, content: bytes) -> bool:
        """Write a file that is not there; False if it is. Of several processes, one succeeds."""

    @abstractmethod
    def renew(self, name: str, before: bytes, after: bytes) -> bool:
        """Replace a content by another of equal length; False if it is not what is there."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Delete a file, if it is there."""

    @abstractmethod
    def names(self, folder: str) -> list[str]:
        """The names in a subfolder."""

    @abstractmethod
    def check(self, *, write: bool) -> None:
        """Raise `GlimpseZooError` if the place does not answer or, with `write`, cannot be written."""


class Folder(Place):
    """A folder, on a disk or on a network, that is created when something is written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.shown = str(path)

    def has(self, name: str) -> bool:
        return (self.path / name).is_file()

    def read(self, name: str) -> bytes | None:
        try:
            return (self.path / name).read_bytes()
        except OSError:  # whatever is wrong, its content is made again
            return None

    def write(self, name: str, content: bytes) -> None:
        with self._writing(name) as path:
            write_whole(path, content)

    def create(self, name: str, content: bytes) -> bool:
        with self._writing(name) as path:
            try:
                handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
            except FileExistsError:
                return False
            try:
                os.write(handle, content)
            except OSError:
                path.unlink(missing_ok=True)
                raise
            finally:
                os.close(handle)
            return True

    def renew(self, name: str, before: bytes, after: bytes) -> bool:
        """In the file itself: if another process has replaced it meanwhile, the new file stays as it is."""
        with self._named(name) as path:
            try:
                handle = os.open(path, os.O_RDWR)
            except FileNotFoundError:
                return False
            try:
                if os.read(handle, len(before) + 1) != before:
                    return False
                os.lseek(handle, 0, os.SEEK_SET)
                os.write(handle, after)
            finally:
                os.close(handle)
            return True

    def delete(self, name: str) -> None:
        with self._named(name) as path:
            path.unlink(missing_ok=True)

    def names(self, folder: str) -> list[str]:
        try:
            return os.listdir(self.path / folder)
        except OSError:
            return []

    def check(self, *, write: bool) -> None:
        if write:
            probe = f".{machine()}-{os.getpid()}"
            self.create(probe, b"")
            self.delete(probe)

    @contextmanager
    def _named(self, name: str) -> Iterator[Path]:
        try:
            yield self.path / name
        except OSError as error:
            raise self._unwritable(error) from None

    @contextmanager
    def _writing(self, name: str) -> Iterator[Path]:
        with self._named(name) as path:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield path

    def _unwritable(self, error: OSError) -> GlimpseZooError:
        if is_full(error):
            return GlimpseZooError(
                f"expected room for finished units in {self.shown!r}, got a full disk: make room, or move the folder and name its new "
                "place with --store; units that were finished are kept"
            )
        return GlimpseZooError(
            f"expected a folder for finished units that can be written, got {self.shown!r} ({why_not(error)}): name another with --store"
        )


class Remote(Place):
    """What fsspec reaches by a URL. Whether only one process creates a file depends on the service: S3 keeps that promise."""

    def __init__(self, url: str) -> None:
        self.shown = without_credentials(url)
        self._secrets = [part for found in re.findall(r"://(\S*)@", url) for part in (found, *found.split(":")) if part]
        protocol, _, address = url.partition("://")
        if protocol in _FLAT and re.search("[:@]", address.partition("/")[0]):
            raise GlimpseZooError(f"--store expects a URL without credentials, got some for {self.shown!r}: put them into the environment")
        try:
            import fsspec

            self._files: Any
            self._files, self._root = fsspec.url_to_fs(url, use_listings_cache=False)
        except ImportError:
            name = _PACKAGES.get(protocol)
            package = f"pip install {name}" if name else f"install the package of fsspec for {protocol!r}"
            raise GlimpseZooError(f"--store expects a protocol that is installed, got {self.shown!r}: {package}") from None
        except Exception as error:  # every file system has errors of its own
            raise self._failed(error) from None
        self._root = self._root.rstrip("/")

    def has(self, name: str) -> bool:
        with self._answers():
            return bool(self._files.exists(self._at(name)))

    def read(self, name: str) -> bytes | None:
        with self._answers():
            try:
                return self._files.cat_file(self._at(name))
            except FileNotFoundError:
                return None

    def write(self, name: str, content: bytes) -> None:
        with self._answers():
            self._make_parent(name)
            self._files.pipe_file(self._at(name), content)

    def create(self, name: str, content: bytes) -> bool:
        with self._answers():
            self._make_parent(name)
            try:
                self._files.pipe_file(self._at(name), content, mode="create")
            except FileExistsError:
                return False
            except NotImplementedError:  # a service that does not know the condition
                if self._files.exists(self._at(name)):
                    return False
                self._files.pipe_file(self._at(name), content)
            return True

    def renew(self, name: str, before: bytes, after: bytes) -> bool:
        if self.read(name) != before:
            return False
        self.write(name, after)
        return True

    def delete(self, name: str) -> None:
        with self._answers():
            try:
                self._files.rm_file(self._at(name))
            except FileNotFoundError:
                return

    def names(self, folder: str) -> list[str]:
        with self._answers():
            try:
                found = self._files.ls(self._at(folder), detail=False, refresh=True)
            except FileNotFoundError:
                return []
            return [path.rstrip("/").rpartition("/")[2] for path in found]

    def check(self, *, write: bool) -> None:
        if not write:
            self.has("probe")
            return
        probe = f"probe-{machine()}-{os.getpid()}"
        self.write(probe, b"")
        self.delete(probe)

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _make_parent(self, name: str) -> None:
        """Create the folder of a file, where there are folders."""
        protocol = self._files.protocol
        if not _FLAT & set((protocol,) if isinstance(protocol, str) else protocol):
            self._files.makedirs(self._at(name).rpartition("/")[0], exist_ok=True)

    @contextmanager
    def _answers(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # every file system has errors of its own
            raise self._failed(error) from None

    def _failed(self, error: Exception) -> GlimpseZooError:
        why = without_credentials(one_line(error))
        for secret in self._secrets:
            why = why.replace(secret, "***")
        return GlimpseZooError(
            f"expected a store that can be read and written, got {self.shown!r} ({why:.200}): check the address, the network and the "
            "credentials in the environment; units that were finished are kept"
        )


def place_of(where: Path | str) -> Place:
    """The place of a path or a URL. Raises `GlimpseZooError` for what is neither."""
    if isinstance(where, Path):
        return Folder(where)
    protocol = where.partition(":")[0].lower() if _URL.match(where) else ""
    if protocol in {"file", "local"}:
        where, protocol = re.sub(r"^\w+:(//)?", "", where), ""
    if protocol and "://" not in where:
        raise GlimpseZooError(f"--store expects a folder or a URL, got {where!r}: write {protocol}://...")
    if not where.strip("/") and not where.startswith("/"):
        raise GlimpseZooError("--store expects a folder or a URL, got nothing: name one, such as /shared/units or s3://bucket/units")
    return Remote(where) if protocol else Folder(Path(where))


def without_credentials(text: str) -> str:
    """A text without what stands before '@' in its URLs, and without their queries.

    >>> without_credentials("s3://key:secret@bucket/units?token=x"), without_credentials("runs/units")
    ('s3://bucket/units', 'runs/units')
    """
    return re.sub(r"(://[^\s?]*)\?\S*", r"\1", re.sub(r"://\S*@", "://", text))
