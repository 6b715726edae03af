"""Finds the files of a data set, on the Hub or in a folder of the same layout. Only this module asks `datasets` for data."""

import re
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from glimpsezoo.data.columns import arrow_types, class_names, item_type
from glimpsezoo.data.encoded import EncodedImages, ParquetImages, TableImages, stored_schema
from glimpsezoo.data.fingerprint import file_digest
from glimpsezoo.data.layout import IgnoredPaths, is_hidden
from glimpsezoo.data.listings import Listed
from glimpsezoo.downloads import download
from glimpsezoo.errors import GlimpseZooError, one_line
from glimpsezoo.hub import reading_dataset
from glimpsezoo.untrusted import front_matter

VALIDATION_NAMES = ("validation", "valid", "val", "dev")


class NotStreamableError(GlimpseZooError):
    """The files cannot be streamed."""


@dataclass(frozen=True)
class HubSource:
    """A data set to look for."""

    repository: str
    """OWNER/NAME on the Hub."""
    revision: str | None = None
    """A branch, tag or commit; None is the main branch."""
    subset: str | None = None
    """The configuration that the user asked for."""
    folders: tuple[str, ...] = ()
    """Names that the folder of a local copy may have below `--data-dir`."""
    gated: bool = False
    """Whether it is known to be gated."""

    def failures_explained(self) -> AbstractContextManager[None]:
        """Explain every failure to read it in one line. Raises `GlimpseZooError`."""
        return reading_dataset(self.repository, self.subset, gated=self.gated)


@dataclass(frozen=True)
class DatasetFiles:
    """The files of a data set by split, as `datasets` sees them."""

    source: HubSource
    builder: Any
    """The builder of `datasets`."""
    files: dict[str, tuple[str, ...]]
    """Split -> paths, or addresses `hf://...`."""
    revision: str | None
    """The Hub's commit; None for a local copy of an unknown one."""
    folder: Path | None
    """The folder of a local copy."""
    configuration: str | None = None
    """The name of the configuration, if there are several or it is not the default one."""
    configurations: tuple[str, ...] = ()
    """The names of all configurations."""
    listed: Listed | None = None
    """What is kept of the Hub's listing of this commit, for use without a network."""

    @property
    def local(self) -> bool:
        """Whether the files are in a local folder."""
        return self.folder is not None

    @property
    def whole(self) -> bool:
        """Whether the files are those that the Hub listed at the revision, perhaps in its cache, so that the revision identifies them."""
        return self.folder is None or (self.listed is not None and self.listed.files(self.folder) is not None)

    @property
    def parquet(self) -> bool:
        """Whether all files are Parquet files."""
        return all(file.endswith(".parquet") for files in self.files.values() for file in files)

    def features(self, split: str) -> Any:
        """The features of a split, from its first file; class names also from the README."""
        import datasets

        declared = self.builder.info.features
        if self.parquet:
            schema = self._schema(split)
            try:
                stored = datasets.Features.from_arrow_schema(schema)
            except (ValueError, TypeError, KeyError) as error:  # what its metadata say, by another program or a later version
                name = Path(self.files[split][0]).name
                raise GlimpseZooError(
                    f"expected features in the metadata of {name} that datasets {datasets.__version__} can read, got others "
                    f"({one_line(error):.120}): correct them, or update datasets"
                ) from None
            return _with_names(stored, declared or {}, split)
        if declared is None:
            with self.source.failures_explained():
                self.builder.download_and_prepare()
        return self.builder.info.features

    def _schema(self, split: str) -> Any:
        file = self.files[split][0]
        if self.local and not Path(file).exists():  # not downloaded, but its columns may have been read before
            known = self.listed.schema(split) if self.listed else None
            if known is None:
                raise GlimpseZooError(_incomplete(split, Path(file).name))
            return known
        schema = stored_schema(file)
        if self.listed and not self.local:
            self.listed.remember_schema(split, schema)
        return schema

    def left_out(self) -> IgnoredPaths:
        """The Parquet files of a local copy that are in no split of the configuration."""
        left_out = IgnoredPaths()
        if self.folder is not None and self.listed is None:
            used = {Path(file).resolve() for files in self.files.values() for file in files}
            for file in _parquet_files(self.folder):
                if file.resolve() not in used:
                    left_out.add("in no split of the configuration", file)
        return left_out


def _with_names(stored: Any, declared: Any, split: str) -> Any:
    """A file's features, with the README's class names for numeric labels. Raises `GlimpseZooError` if the file and the README disagree."""
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


def find(source: HubSource, data_dir: Path | None) -> DatasetFiles:
    """Find the files of a data set in `data_dir` or, without one, on the Hub. Raises `GlimpseZooError` if they are not available.

    Without `data_dir`, the data set is looked up on the Hub and in its cache, never in a local folder that happens to have its name.
    """
    import datasets

    folder = local_folder(source, data_dir) if data_dir else None
    with source.failures_explained():
        builder = None
        if folder is None:
            try:
                builder = datasets.load_dataset_builder(_ONLY_REMOTE + source.repository, name=source.subset, revision=source.revision)
            except ConnectionError:
                folder = _downloaded_before(source)
                if folder is None:
                    raise
            if builder is not None and not builder.config.data_files:  # `datasets` has a copy of an unknown revision
                folder = _downloaded_before(source)
                if folder is None:
                    raise ConnectionError("there is only a table made from an unknown revision")
        if folder is not None:
            front_matter(folder / "README.md")  # raises for one that `datasets` should not read
            subset = None if folder.name == source.subset else source.subset
            builder = datasets.load_dataset_builder(str(folder.resolve()), name=subset)
    assert builder is not None
    files = {str(split): tuple(map(str, names)) for split, names in (builder.config.data_files or {}).items()}
    if data_dir and folder:
        files = _of_tables(files, folder)
    if not files:
        raise GlimpseZooError(f"expected data files in {source.repository}, got none: name another set, or class folders by folder:PATH")
    commit = source.revision if data_dir else folder.name if folder else _commit(next(iter(files.values()))[0])
    names = tuple(builder.builder_configs)
    chosen = builder.config.name if len(names) > 1 or builder.config.name != "default" else source.subset
    listed = Listed(source.repository, commit, source.subset) if commit and data_dir is None else None
    if listed and folder is None:
        listed.remember(files)
    elif listed and folder is not None:  # perhaps only a part was downloaded
        files = dict(listed.files(folder) or files)
    return DatasetFiles(source, builder, files, commit, folder, chosen, names, listed)


_ONLY_REMOTE = "hf://datasets/"  # this prefix keeps `datasets` from reading a local folder of that name
_SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})(.*)")
DEPTH = 3  # levels of folders below a local copy that may contain its Parquet files


def _check_whole(dataset: DatasetFiles, split: str) -> None:
    """Raise `GlimpseZooError` if a file of a split is missing, or if its files belong to several sets."""
    sets: dict[tuple[str, int, str], set[int]] = {}
    for file in dataset.files[split]:
        if dataset.local and not Path(file).exists():
            raise GlimpseZooError(_incomplete(split, Path(file).name))
        if part := _SHARD.fullmatch(file):
            sets.setdefault((part[1], int(part[3]), part[4]), set()).add(int(part[2]))
    for (start, count, end), numbers in sets.items():
        missing = sorted(set(range(count)) - numbers)
        if missing:
            raise GlimpseZooError(_incomplete(split, f"{Path(start).name}-{missing[0]:05}-of-{count:05}{end}"))
    folders, names = sorted({Path(start).parent.name for start, _, _ in sets}), sorted({Path(start).name for start, _, _ in sets})
    if max(len(folders), len(names)) < 2 or not dataset.folder or _tells_configurations(dataset.folder):
        return
    several = f"the folders {', '.join(folders[:5])}" if len(folders) > 1 else f"the names {', '.join(names[:5])}"
    choose = f"name one by --set data.subset={folders[0]}" if len(folders) > 1 else "rename them to train-* and test-*"
    raise GlimpseZooError(
        f"expected one set of files of the split {split!r}, got those of {several}: {choose}, or put the data set's README.md beside them"
    )


def _incomplete(split: str, missing: str) -> str:
    return f"expected all files of the split {split!r}, got none called {missing}: complete the copy of the data set"


def _parquet_files(folder: Path, depth: int = DEPTH) -> list[Path]:
    """The Parquet files in a folder and below it, except in hidden folders."""
    found = []
    for entry in sorted(folder.iterdir()):
        if is_hidden(entry.name):
            continue
        if entry.is_dir() and depth:
            found += _parquet_files(entry, depth - 1)
        elif entry.suffix == ".parquet":
            found.append(entry)
    return found


def _of_tables(files: dict[str, tuple[str, ...]], folder: Path) -> dict[str, tuple[str, ...]]:
    """The files of a local copy by split: its Parquet files, if more pictures beside them made `datasets` read the pictures instead.

    A README that assigns files to configurations decides.
    """
    if all(file.endswith(".parquet") for names in files.values() for file in names) or _tells_configurations(folder):
        return files
    from datasets.data_files import DataFilesDict, _get_data_files_patterns, resolve_pattern

    where: dict[str, Any] = {"base_path": folder.resolve().as_posix(), "allowed_extensions": [".parquet"]}
    found = DataFilesDict.from_patterns(_get_data_files_patterns(partial(resolve_pattern, **where)), **where)  # its own rule for splits
    return {str(split): tuple(map(str, names)) for split, names in found.items()}


def local_folder(source: HubSource, data_dir: Path) -> Path:
    """The folder at or below `data_dir` with the data set's Parquet files; that of the subset, if no README describes the subsets.

    Raises `GlimpseZooError` if a revision is asked for that the folder's name (a commit, for a snapshot) does not confirm.
    """
    names = [*source.folders, source.repository, source.repository.rpartition("/")[2]]
    candidates = [data_dir / name for name in dict.fromkeys(names)] + [data_dir]
    for folder in candidates:
        if not folder.is_dir() or not _holds(folder):
            continue
        if source.revision is not None and folder.resolve().name != source.revision:
            raise GlimpseZooError(
                f"expected the revision {source.revision} of {source.repository}, got --data-dir, whose revision is not known: "
                "leave out @REVISION, or --data-dir"
            )
        own = folder / source.subset if source.subset and not _tells_configurations(folder) else folder
        return own if own.is_dir() and _parquet_files(own) else folder
    looked = ", ".join(f"{folder}/[*/]*.parquet" for folder in candidates)
    raise GlimpseZooError(f"--data-dir expects the Parquet files of {source.repository}, got a folder without them: looked for {looked}")


def _holds(folder: Path) -> bool:
    """Whether a folder holds a data set: Parquet files in it or in its folders, or deeper if a README describes them."""
    return bool(_parquet_files(folder, DEPTH if _tells_configurations(folder) else 1))


def _tells_configurations(folder: Path) -> bool:
    """Whether the folder has a README that, like those of the Hub, assigns files to configurations."""
    return "\nconfigs:" in front_matter(folder / "README.md")


def open_images(dataset: DatasetFiles, split: str, columns: tuple[str, str], *, streaming: bool, shuffled: bool) -> EncodedImages:
    """Open a split of the source. columns: of image and label. shuffled: whether it will be read in random order, to train.

    Without streaming, remote files are downloaded first, and a shuffled split becomes a table of `datasets` on disk.
    Raises `GlimpseZooError` if there is no such split.
    """
    import datasets

    split = source_split(dataset, split)
    files = dataset.files[split]
    _check_whole(dataset, split)
    if not dataset.parquet:
        if streaming:
            raise NotStreamableError(f"expected Parquet files to stream, got {Path(files[0]).name}: set data.streaming=false")
        with dataset.source.failures_explained():
            dataset.builder.download_and_prepare()
            table = dataset.builder.as_dataset(split=split)
        return TableImages(table, columns, f"{dataset.revision}:{split}" if dataset.whole else file_digest(files))
    if streaming:
        return ParquetImages(files, *columns, shuffled=shuffled)
    if not dataset.local:
        with dataset.source.failures_explained():
            files = tuple(_downloaded(file) for file in files)
    images = ParquetImages(files, *columns)  # names a truncated file, which `datasets` does not
    if not shuffled or not len(images):  # `datasets` cannot copy a file without rows
        return images
    digest = images.digest()
    # `datasets` caches its copy by the files' names and times. A name made from their content ties the copy to these files.
    called = f"glimpsezoo-{digest[:16]}"
    with dataset.source.failures_explained():
        table = datasets.load_dataset("parquet", name=called, data_files={split: list(files)}, split=split)
    return TableImages(table, columns, digest, images)


def source_split(dataset: DatasetFiles, split: str) -> str:
    """The source's name for a split: `datasets` may call 'valid' 'validation'. Raises `GlimpseZooError` if there is none."""
    names = VALIDATION_NAMES if split in VALIDATION_NAMES else (split,)
    for name in (split, *names):
        if name in dataset.files:
            return name
    raise GlimpseZooError(
        f"expected files of the split {split!r}, got those of {', '.join(dataset.files)}: complete the copy of the data set"
    )


def _commit(file: str) -> str | None:
    """The commit in `hf://datasets/OWNER/NAME@COMMIT/PATH`, if any."""
    head, at, tail = file.partition("@")
    return tail.partition("/")[0] if at and head.startswith("hf://") else None


def _downloaded_before(source: HubSource) -> Path | None:
    """The snapshot of this data set in the Hub's cache; its folder is named by the commit."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source.repository, repo_type="dataset", revision=source.revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def _downloaded(file: str) -> str:
    """The local copy of a file on the Hub, downloaded if necessary."""
    from huggingface_hub import HfFileSystem
    from huggingface_hub.hf_file_system import HfFileSystemResolvedRepositoryPath

    place = HfFileSystem().resolve_path(file)
    assert isinstance(place, HfFileSystemResolvedRepositoryPath)
    return str(download(place.repo_id, place.path_in_repo, place.revision, "dataset"))
