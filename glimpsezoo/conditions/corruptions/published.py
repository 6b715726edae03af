"""Published corrupted images (such as ImageNet-C), read from their folders `corruption/severity/class/image`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from glimpsezoo.conditions.corruptions.presets import SEVERITIES
from glimpsezoo.data.base import DataInfo, ImageData
from glimpsezoo.data.config import FolderSettings
from glimpsezoo.data.encoded import FolderImages
from glimpsezoo.data.fingerprint import fingerprint
from glimpsezoo.data.images import NaturalImages, SplitSource
from glimpsezoo.data.labels import Labels
from glimpsezoo.data.layout import is_hidden, is_image
from glimpsezoo.data.wordnet import titled
from glimpsezoo.errors import GlimpseZooError, did_you_mean
from glimpsezoo.specs import Task

_NOT_READ = ("size", "layout", "train", "test", "orientation", "background")  # settings of folders that do not apply here


class CorruptedFolders:
    """Stored corrupted images (`--corrupted-dir`). Class folders have the names of the classes in `task`.

    Class folders of other classes are ignored, so ImageNet-C can be used for a subset of ImageNet's classes. Images of another size are
    fitted to the task's. The id of an image is its place in its folder, sorted by label and name, so it is the same under every
    corruption; it is not the id in the clean data set.
    """

    def __init__(self, path: Path, task: Task, corruptions: Sequence[str]) -> None:
        """corruptions: the names of those to measure. Raises `GlimpseZooError` for the first one that is incomplete."""
        self.path, self.task, self.corruptions = Path(path), task, tuple(corruptions)
        if not self.path.is_dir():
            raise GlimpseZooError(f"--corrupted-dir expects a folder of CORRUPTION/SEVERITY/CLASS/IMAGE, got {path}, which is not a folder")
        for corruption in self.corruptions:
            self._check_severities(corruption)
        places = [(corruption, severity) for corruption in self.corruptions for severity in SEVERITIES]
        counts = {place: sum(map(len, self._names(*place))) for place in places}
        for (corruption, severity), count in counts.items():
            if count != max(counts.values()):
                raise GlimpseZooError(
                    f"--corrupted-dir expects as many images under every corruption and severity ({max(counts.values())}), "
                    f"got {count} in {corruption}/{severity}: complete the folder"
                )

    def open(self, corruption: str, severity: int) -> ImageData:
        """The images of a corruption at a severity, 1 to 5."""
        root = self.path / corruption / str(severity)
        by_class = self._names(corruption, severity)
        labels = np.repeat(np.arange(len(by_class)), [len(names) for names in by_class])
        images = FolderImages(root, [root / name for names in by_class for name in names], labels.tolist())
        height, width = self.task.image_size
        channels = 1 if self.task.channels == 1 else 3
        transform = f"as it is stored, fitted to {width} x {height} where it has another size"
        info = DataInfo(
            name=f"{self.path.resolve().name}/{corruption}/{severity}",
            source=f"folder:{self.path.resolve().name}",
            revision=None,
            fingerprint=fingerprint(
                images.digest(), "test", transform, FolderSettings.parse({"channels": channels}, owner="data"), ignore=_NOT_READ
            ),
            split="test",
            transform=transform,
        )
        return NaturalImages(info, self.task, SplitSource(images, np.arange(len(images)), Labels(len(by_class)), 1.0, labels))

    def _check_severities(self, corruption: str) -> None:
        folder = self.path / corruption
        if not folder.is_dir():
            known = [entry.name for entry in self.path.iterdir() if entry.is_dir()]
            raise GlimpseZooError(
                f"--corrupted-dir expects a folder {corruption} in {self.path}, got none: {did_you_mean(corruption, known)}"
            )
        missing = [str(severity) for severity in SEVERITIES if not (folder / str(severity)).is_dir()]
        if missing:
            raise GlimpseZooError(
                f"--corrupted-dir expects severities 1 to 5 in {folder}, got none of {', '.join(missing)}: complete the folder"
            )

    def _names(self, corruption: str, severity: int) -> list[tuple[str, ...]]:
        """The image files of each class in label order, as `CLASS/IMAGE`. Raises `GlimpseZooError` if a class or its images are missing."""
        root = self.path / corruption / str(severity)
        found = {entry.name for entry in root.iterdir() if entry.is_dir()}
        missing = [name for name in self.task.classes if name not in found]
        if missing:
            got = ", ".join(sorted(found)[:3]) + (", ..." if len(found) > 3 else "") if found else "none"
            raise GlimpseZooError(
                f"--corrupted-dir expects a folder for each of the data's {len(self.task.classes)} classes in {root}, "
                f"got {got} without {titled(missing[0])!r}: choose the data set that was corrupted by --data"
            )
        by_class = [self._files(root, label) for label in self.task.classes]
        empty = [label for label, names in zip(self.task.classes, by_class, strict=True) if not names]
        if empty:
            raise GlimpseZooError(
                f"--corrupted-dir expects images of every class in {root}, got none in {titled(empty[0])}: complete the folder"
            )
        return by_class

    @staticmethod
    def _files(root: Path, label: str) -> tuple[str, ...]:
        names = sorted(file.name for file in (root / label).iterdir() if is_image(file) and not is_hidden(file.name) and not file.is_dir())
        return tuple(f"{label}/{name}" for name in names)
