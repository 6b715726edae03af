"""Where a data set's files are: on the Hub, or in a folder of the same layout. All that is asked of `datasets` is asked here."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glimpsezoo.data.columns import arrow_types, class_names, item_type
from glimpsezoo.data.fingerprint import file_digest
from glimpsezoo.data.layout import LeftOut, is_hidden
from glimpsezoo.data.listings import Listed
from glimpsezoo.data.rows import ParquetRows, Rows, TableRows, stored_schema
from glimpsezoo.errors import GlimpseZooError, one_line

VALIDATION_NAMES = ("validation", "valid", "val", "dev")


class NotStreamableError(GlimpseZooError):
    """Files that can only be read whole."""


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
    """A data set's files by split, as `datasets` sees them. revision: the Hub's commit, or None for a local copy.

    folder: of the local copy. configuration: its name, where there are several or it has a name of its own; configurations: of all.
    listed: what is known of a commit of the Hub's without a network.
    """

    request: Request
    builder: Any
    files: dict[str, tuple[str, ...]]
    revision: str | None
    folder: Path | None
    configuration: str | None = None
    configurations: tuple[str, ...] = ()
    listed: Listed | None = None

    @property
    def local(self) -> bool:
        return self.folder is not None

    @property
    def parquet(self) -> bool:
        return all(file.endswith(".parquet") for files in self.files.values() for file in files)

    def features(self, split: str) -> Any:
        """The columns' types in a split, as `datasets` features: what its first file says, and of classes what the README names."""
        import datasets

        declared = self.builder.info.features
        if self.parquet:
            return _with_names(datasets.Features.from_arrow_schema(self._schema(split)), declared or {}, split)
        if declared is None:
            with _said(self.request):
                self.builder.download_and_prepare()
        return self.builder.info.features

    def _schema(self, split: str) -> Any:
        file = self.files[split][0]
        if self.local and not Path(file).exists():  # not downloaded: its columns are known where it was looked at before
            known = self.listed.schema(split) if self.listed else None
            if known is None:
                raise GlimpseZooError(_incomplete(split, Path(file).name))
            return known
        schema = stored_schema(file)
        if self.listed and not self.local:
            self.listed.remember_schema(split, schema)
        return schema

    def left_out(self) -> LeftOut:
        """Parquet files of a local copy that belong to no split of the configuration."""
        left_out = LeftOut()
        if self.folder is not None and self.listed is None:
            used = {Path(file).resolve() for files in self.files.values() for file in files}
            for file in _parquet_files(self.folder):
                if file.resolve() not in used:
                    left_out.add("in no split of the configuration", file)
        return left_out


def _with_names(stored: Any, declared: Any, split: str) -> Any:
    """A file's features, with the classes that the README names of plain numbers. Raises `GlimpseZooError` where the two disagree."""
    import pyarrow as pa

    types = arrow_types(stored)
    for name in types:
        own, theirs = class_names(stored[name]), class_names(declared.get(name))
        if own and theirs and own != theirs:
            at = next((place for place, (a, b) in enumerate(zip(own, theirs, strict=False)) if a != b), min(len(own), len(theirs)))
            raise GlimpseZooError(
                f"expected the README's classes in the column {name!r} of {split}, got others from class {at} on "
                f"({own[at : at + 1]} and {theirs[at : at + 1]}): make them agree, or remove the README's"
            )
        if theirs and not own and pa.types.is_integer(item_type(types[name])):
            stored[name] = declared[name]
    return stored


def find(request: Request, data_dir: Path | None) -> Found:
    """The files of a data set, in `data_dir` if one is given and else on the Hub. Raises `GlimpseZooError` where they are not to be had.

    A name is looked for on the Hub and in what was downloaded from there, never in a folder that happens to be called so.
    """
    import datasets

    folder = local_folder(request, data_dir) if data_dir else None
    with _said(request):
        builder = None
        if folder is None:
            try:
                builder = datasets.load_dataset_builder(_ONLY_REMOTE + request.repository, name=request.subset, revision=request.revision)
            except ConnectionError:
                folder = _downloaded_before(request)
                if folder is None:
                    raise
            if builder is not None and not builder.config.data_files:  # a copy that `datasets` made of some revision, nobody knows which
                folder = _downloaded_before(request)
                if folder is None:
                    raise ConnectionError("there is only a table that another revision may have made")
        if folder is not None:
            subset = None if folder.name == request.subset else request.subset
            builder = datasets.load_dataset_builder(str(folder.resolve()), name=subset)
    assert builder is not None
    files = {str(split): tuple(map(str, names)) for split, names in (builder.config.data_files or {}).items()}
    if not files:
        raise GlimpseZooError(f"expected data files in {request.repository}, got none: name another set, or class folders by folder:PATH")
    commit = request.revision if data_dir else folder.name if folder else _commit(next(iter(files.values()))[0])
    names = tuple(builder.builder_configs)
    chosen = builder.config.name if len(names) > 1 or builder.config.name != "default" else request.subset
    listed = Listed(request.repository, commit, request.subset) if commit and data_dir is None else None
    if listed and folder is None:
        listed.remember(files)
    elif listed and folder is not None:  # what was downloaded may be a part
        files = dict(listed.files(folder) or files)
    return Found(request, builder, files, commit, folder, chosen, names, listed)


_ONLY_REMOTE = "hf://datasets/"  # before a name, keeps `datasets` from reading a local folder of that name
_SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})(.*)")
DEPTH = 3  # folders below a local copy's own in which its Parquet files may lie


def _check_whole(found: Found, split: str) -> None:
    """Raise `GlimpseZooError` where a file of a split is missing, and where its files are those of several sets."""
    sets: dict[tuple[str, int, str], set[int]] = {}
    for file in found.files[split]:
        if found.local and not Path(file).exists():
            raise GlimpseZooError(_incomplete(split, Path(file).name))
        if part := _SHARD.fullmatch(file):
            sets.setdefault((part[1], int(part[3]), part[4]), set()).add(int(part[2]))
    for (start, count, end), numbers in sets.items():
        missing = sorted(set(range(count)) - numbers)
        if missing:
            raise GlimpseZooError(_incomplete(split, f"{Path(start).name}-{missing[0]:05}-of-{count:05}{end}"))
    folders = sorted({Path(start).parent.name for start, _, _ in sets})
    if len(folders) > 1 and found.folder and not _tells_configurations(found.folder):
        raise GlimpseZooError(
            f"expected one set of files of the split {split!r}, got those of the folders {', '.join(folders[:5])}: "
            f"name one by --set data.subset={folders[0]}, or put the data set's README.md beside them"
        )


def _incomplete(split: str, missing: str) -> str:
    return f"expected all files of the split {split!r}, got none called {missing}: complete the copy of the data set"


def _parquet_files(folder: Path, depth: int = DEPTH) -> list[Path]:
    """The Parquet files in a folder and below it, hidden folders left out."""
    found = []
    for entry in sorted(folder.iterdir()):
        if is_hidden(entry.name):
            continue
        if entry.is_dir() and depth:
            found += _parquet_files(entry, depth - 1)
        elif entry.suffix == ".parquet":
            found.append(entry)
    return found


def local_folder(request: Request, data_dir: Path) -> Path:
    """The folder at or below `data_dir` that holds the data set's Parquet files; a subset's own, where no README tells of subsets.

    Raises `GlimpseZooError` for a revision that is asked for and that the folder's name does not confirm, as a snapshot's does.
    """
    names = [*request.folders, request.repository, request.repository.rpartition("/")[2]]
    candidates = [data_dir / name for name in dict.fromkeys(names)] + [data_dir]
    for folder in candidates:
        if not folder.is_dir() or not _holds(folder):
            continue
        if request.revision is not None and folder.resolve().name != request.revision:
            raise GlimpseZooError(
                f"expected the revision {request.revision} of {request.repository}, got --data-dir, whose revision nobody knows: "
                "leave out @REVISION, or --data-dir"
            )
        own = folder / request.subset if request.subset and not _tells_configurations(folder) else folder
        return own if own.is_dir() and _parquet_files(own) else folder
    looked = ", ".join(f"{folder}/[*/]*.parquet" for folder in candidates)
    raise GlimpseZooError(f"--data-dir expects the Parquet files of {request.repository}, got a folder without: looked for {looked}")


def _holds(folder: Path) -> bool:
    """Whether a folder is a data set's: with Parquet files in it or in its folders, or deeper where a README tells of them."""
    return bool(_parquet_files(folder, DEPTH if _tells_configurations(folder) else 1))


def _tells_configurations(folder: Path) -> bool:
    """Whether a data set's README stands there that says which files are whose, as the Hub's do; any other text is none."""
    try:
        head, _, rest = (folder / "README.md").read_text(encoding="utf-8").removeprefix("---").partition("\n---")
    except (OSError, UnicodeDecodeError):
        return False
    return bool(rest) and "\nconfigs:" in head


def open_rows(found: Found, split: str, columns: tuple[str, str], *, streaming: bool, shuffled: bool) -> Rows:
    """The rows of a split of the source. columns: of image and label. shuffled: whether they will be read in any order, to train.

    Without streaming, remote files are downloaded first, and what will be read in any order becomes a table of `datasets` on disk.
    Raises `GlimpseZooError` for a split that is not there.
    """
    import datasets

    split = source_split(found, split)
    files = found.files[split]
    _check_whole(found, split)
    if not found.parquet:
        if streaming:
            raise NotStreamableError(f"expected Parquet files to stream, got {Path(files[0]).name}: set data.streaming=false")
        with _said(found.request):
            found.builder.download_and_prepare()
            table = found.builder.as_dataset(split=split)
        return TableRows(table, columns, file_digest(files) if found.local else f"{found.revision}:{split}")
    if streaming:
        return ParquetRows(files, *columns, shuffled=shuffled)
    if not found.local:
        with _said(found.request):
            files = tuple(_downloaded(file) for file in files)
    rows = ParquetRows(files, *columns)  # names a file that is cut, which `datasets` does not
    if not shuffled:
        return rows
    digest = rows.digest()
    # `datasets` keeps its copy by the files' names and times; called by their content, it is that of these files.
    called = f"glimpsezoo-{digest[:16]}"
    with _said(found.request):
        table = datasets.load_dataset("parquet", name=called, data_files={split: list(files)}, split=split)
    return TableRows(table, columns, digest, rows)


def source_split(found: Found, split: str) -> str:
    """The name that the source has for a split: `datasets` may call 'valid' 'validation'. Raises `GlimpseZooError` where it has none."""
    names = VALIDATION_NAMES if split in VALIDATION_NAMES else (split,)
    for name in (split, *names):
        if name in found.files:
            return name
    raise GlimpseZooError(
        f"expected files of the split {split!r}, got those of {', '.join(found.files)}: complete the copy of the data set"
    )


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
    known = re.search(r"\['.*?'\]", text)
    if known and ("Config name is missing" in text or "BuilderConfig" in text):
        names = known[0].strip("[]").replace("'", "")
        what = f"got {request.subset!r}" if request.subset else "got none named"
        return f"expected one of the configurations of {name}, {what}: choose by --set data.subset=NAME, of {names}"
    return f"expected a data set that can be read, got {name!r}: {text}"
