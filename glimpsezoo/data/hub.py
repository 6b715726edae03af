"""Where a data set's files are: on the Hub, or in a folder of the same layout. All that is asked of `datasets` is asked here."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glimpsezoo.data.fingerprint import file_digest
from glimpsezoo.data.rows import ParquetRows, Rows, TableRows
from glimpsezoo.errors import GlimpseZooError, one_line

VALIDATION_NAMES = ("validation", "valid", "val", "dev")


@dataclass(frozen=True)
class Request:
    """What to look for. repository: OWNER/NAME on the Hub. folders: names that a local copy may have below `--data-dir`."""

    repository: str
    revision: str | None = None
    subset: str | None = None
    folders: tuple[str, ...] = ()
    gated: bool = False


@dataclass(frozen=True)
class Found:
    """A data set's files by split, as `datasets` sees them. revision: the Hub's commit, or None for a local copy."""

    request: Request
    builder: Any
    files: dict[str, tuple[str, ...]]
    revision: str | None
    local: bool

    @property
    def parquet(self) -> bool:
        return all(file.endswith(".parquet") for files in self.files.values() for file in files)

    def features(self) -> Any:
        """The columns' types, as `datasets` features."""
        import datasets
        import fsspec
        import pyarrow.parquet as pq

        if self.builder.info.features is not None:
            return self.builder.info.features
        with _said(self.request):
            if not self.parquet:
                self.builder.download_and_prepare()
                return self.builder.info.features
            with fsspec.open(next(iter(self.files.values()))[0], "rb") as stream:
                return datasets.Features.from_arrow_schema(pq.read_schema(stream))


def find(request: Request, data_dir: Path | None) -> Found:
    """The files of a data set, in `data_dir` if one is given and else on the Hub. Raises `GlimpseZooError` where they are not to be had."""
    import datasets

    folder = local_folder(request, data_dir) if data_dir else None
    with _said(request):
        if folder is None:
            try:
                builder = datasets.load_dataset_builder(request.repository, name=request.subset, revision=request.revision)
            except ConnectionError:
                folder = _downloaded_before(request)
                if folder is None:
                    raise
        if folder is not None:
            builder = datasets.load_dataset_builder(str(folder))
    files = {str(split): tuple(map(str, names)) for split, names in (builder.config.data_files or {}).items()}
    if not files:
        raise GlimpseZooError(f"expected data files in {request.repository}, got none: name another set, or class folders by folder:PATH")
    if data_dir:
        return Found(request, builder, files, None, local=True)
    commit = folder.name if folder else _commit(next(iter(files.values()))[0])
    return Found(request, builder, files, commit, local=folder is not None)


def local_folder(request: Request, data_dir: Path) -> Path:
    """The folder at or below `data_dir` that holds the data set's Parquet files."""
    names = [*request.folders, request.repository, request.repository.rpartition("/")[2]]
    candidates = [data_dir / name for name in dict.fromkeys(names)] + [data_dir]
    for folder in candidates:
        if any(folder.glob("*.parquet")) or any(folder.glob("*/*.parquet")):
            return folder
    looked = ", ".join(f"{folder}/[*/]*.parquet" for folder in candidates)
    raise GlimpseZooError(f"--data-dir expects the Parquet files of {request.repository}, got a folder without: looked for {looked}")


def open_rows(found: Found, split: str, columns: tuple[str, str], *, streaming: bool, shuffled: bool) -> Rows:
    """The rows of a split of the source. columns: of image and label. shuffled: whether they will be read in any order, to train.

    Without streaming, remote files are downloaded first, and what will be read in any order becomes a table of `datasets` on disk.
    Raises `GlimpseZooError` for a split that is not there.
    """
    import datasets

    split = source_split(found, split)
    files = found.files[split]
    if not found.parquet:
        if streaming:
            raise GlimpseZooError(f"expected Parquet files to stream, got {Path(files[0]).name}: set data.streaming=false")
        with _said(found.request):
            found.builder.download_and_prepare()
            table = found.builder.as_dataset(split=split)
        return TableRows(table, *columns, file_digest(files) if found.local else f"{found.revision}:{split}")
    if streaming:
        return ParquetRows(files, *columns, shuffled=shuffled)
    if not found.local:
        with _said(found.request):
            files = tuple(_downloaded(file) for file in files)
    rows = ParquetRows(files, *columns)  # names a file that is cut, which `datasets` does not
    if not shuffled:
        return rows
    with _said(found.request):
        table = datasets.load_dataset("parquet", data_files={split: list(files)}, split=split)
    return TableRows(table, *columns, file_digest(files))


def source_split(found: Found, split: str) -> str:
    """The name that the source has for a split: `datasets` may call 'valid' 'validation'. Raises `GlimpseZooError` where it has none."""
    names = VALIDATION_NAMES if split in VALIDATION_NAMES else (split,)
    for name in (split, *names):
        if name in found.files:
            return name
    raise GlimpseZooError(
        f"expected files of the split {split!r}, got those of {', '.join(found.files)}: complete the copy of the data set"
    )


def find_columns(features: Any, image: str | None, label: str | None) -> tuple[str, str]:
    """The columns of image and label: those named, or the only ones of their kind.

    Raises `GlimpseZooError` for a name that is no column, and where there is not exactly one candidate.
    """
    import datasets

    for key, name in (("image", image), ("label", label)):
        if name is not None and name not in features:
            raise GlimpseZooError(f"--set data.{key}={name} expects a column, and there are {', '.join(features)}")
    images = [name for name, kind in features.items() if isinstance(kind, datasets.Image) or _holds_bytes(kind)]
    labels = [name for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    labels = labels or [name for name in features if name in ("label", "labels", "class", "target")]
    return image or _only(images, "image", features), label or _only(labels, "label", features)


def class_names(feature: Any) -> tuple[str, ...]:
    """The classes that a label column's feature names; none for a plain column."""
    import datasets

    return tuple(feature.names) if isinstance(feature, datasets.ClassLabel) else ()


def _holds_bytes(kind: Any) -> bool:
    return isinstance(kind, dict) and "bytes" in kind


def _only(names: list[str], key: str, features: Any) -> str:
    if len(names) == 1:
        return names[0]
    got = ", ".join(names) if names else f"none of {', '.join(features)}"
    raise GlimpseZooError(f"expected one column of {key}s, got {got}: name it by --set data.{key}=COLUMN")


def _commit(file: str) -> str | None:
    """The commit in `hf://datasets/OWNER/NAME@COMMIT/PATH`."""
    head, at, tail = file.partition("@")
    return tail.partition("/")[0] if at and head.startswith("hf://") else None


def _downloaded_before(request: Request) -> Path | None:
    """What an earlier run downloaded of this data set; its folder's name is the commit."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(request.repository, repo_type="dataset", revision=request.revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def _downloaded(file: str) -> str:
    """The local copy of a file of the Hub, fetched if it is not there yet."""
    from huggingface_hub import HfFileSystem, hf_hub_download
    from huggingface_hub.hf_file_system import HfFileSystemResolvedRepositoryPath

    place = HfFileSystem().resolve_path(file)
    assert isinstance(place, HfFileSystemResolvedRepositoryPath)
    return hf_hub_download(place.repo_id, place.path_in_repo, repo_type="dataset", revision=place.revision)


@contextmanager
def _said(request: Request) -> Iterator[None]:
    """What goes wrong with a data set, as one line that says what to do. Raises `GlimpseZooError`."""
    try:
        yield
    except GlimpseZooError:
        raise
    except Exception as error:  # the libraries below raise what they like
        raise GlimpseZooError(_explained(request, error)) from error


def _explained(request: Request, error: Exception) -> str:
    """One line: what was expected, what was got, what to do."""
    from datasets.exceptions import DatasetGenerationError

    name = request.repository
    if isinstance(error, DatasetGenerationError):  # which says no more than that
        return f"expected a data set that can be read, got {name!r} ({one_line(error.__cause__ or error)}): fetch its files again"
    text = one_line(error)
    page = f"https://huggingface.co/datasets/{name}"
    if "gated" in text.lower() or (request.gated and "cannot be accessed" in text):
        return (
            f"{name} is gated, and this account has no access: accept its terms at {page}, log in by 'hf auth login' (or set HF_TOKEN), "
            "then run again; or read a copy on disk by --data-dir"
        )
    if isinstance(error, ConnectionError):
        return f"cannot reach the Hub for {name} ({text}): check the network, or read a copy on disk by --data-dir"
    if "config name" in text.lower():
        return f"{name} has several configurations: name one by --set data.subset=NAME ({text})"
    return f"expected a data set that can be read, got {name!r}: {text}"
