"""The Hugging Face Hub: every failure becomes one line that says what was wanted, what happened and what to do.

Imports neither torch nor datasets.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal

from glimpsezoo.errors import GlimpseZooError, one_line
from glimpsezoo.escaping import redacted
from glimpsezoo.files import is_full
from glimpsezoo.waiting import UnansweredError, bound

_LOG_IN = "log in by 'hf auth login' (or set HF_TOKEN)"


def page(name: str, kind: Literal["model", "dataset"] = "model") -> str:
    """The address of the repository OWNER/NAME."""
    from huggingface_hub import constants

    return redacted(f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{name}")


def reading_model(name: str, file: str, revision: str | None = None, size: int | None = None) -> AbstractContextManager[None]:
    """Explain failures to read a file from a model repository. size: of the download in bytes. Raises `GlimpseZooError`."""
    return _explaining(lambda error: _model_failure(name, file, revision, size, error))


def publishing_model(name: str) -> AbstractContextManager[None]:
    """Explain failures to write to a model repository. Raises `GlimpseZooError`."""
    return _explaining(lambda error: _publishing_failure(name, error))


def reading_dataset(name: str, subset: str | None = None, *, gated: bool = False) -> AbstractContextManager[None]:
    """Explain failures to read a data set, on the Hub or in a local copy. Raises `GlimpseZooError`.

    subset: the configuration that the user asked for. gated: whether the data set is known to be gated.
    """
    return _explaining(lambda error: _dataset_failure(name, subset, gated, error))


@contextmanager
def _explaining(explain: Callable[[Exception], str]) -> Iterator[None]:
    bound()
    try:
        yield
    except GlimpseZooError as error:
        if isinstance(error, UnansweredError):
            raise GlimpseZooError(explain(error)) from error
        raise
    except Exception as error:  # the client and the libraries below it raise exceptions of many types
        raise GlimpseZooError(explain(error)) from error


def _model_failure(name: str, file: str, revision: str | None, size: int | None, error: Exception) -> str:
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    place, chain = name + (f"@{revision}" if revision else ""), _causes(error)
    if _full(chain):
        return _needs_space(name, f", which takes {size / 1e6:.0f} MB" if size else "")
    if why := _unwritable(chain):
        return _needs_place(name, why)
    if silent := _unanswered(chain):
        return f"cannot get {name} from the Hub ({silent.why}): {silent.remedy}; the same command goes on from here"
    if isinstance(error, GatedRepoError):
        return _gated(name, page(name))
    if isinstance(error, RevisionNotFoundError):
        return f"expected a branch, tag or commit of {name}, got {revision!r}, which does not exist: see {page(name)}/commits/main"
    if isinstance(error, RepositoryNotFoundError):
        return f"expected a model repository of the Hub, got {name!r}, which does not exist or is private: check its name, or {_LOG_IN}"
    if _offline(chain):
        return f"{place} was not downloaded before, and HF_HUB_OFFLINE forbids it now: unset it, or name a card on disk"
    if isinstance(error, EntryNotFoundError) and not isinstance(error, FileNotFoundError):
        return f"expected a card of glimpsezoo in the repository {place}, got one without {file!r}: see {page(name)}/tree/main"
    if _refused(chain):
        return f"the Hub refuses {name} to this account ({_why(chain)}): {_LOG_IN} with a token that may read it"
    if _rejected(chain):
        return f"the Hub does not give {place} ({_why(chain)}): see {page(name)}"
    return f"cannot get {name} from the Hub ({_why(chain)}): check the network (and HF_ENDPOINT); the same command goes on from here"


def _publishing_failure(name: str, error: Exception) -> str:
    from huggingface_hub.errors import LocalTokenNotFoundError

    chain = _causes(error)
    if silent := _unanswered(chain):
        return f"cannot publish {name} ({silent.why}): {silent.remedy}"
    if _offline(chain):
        return f"cannot publish {name}, because HF_HUB_OFFLINE forbids it: unset it"
    if isinstance(error, LocalTokenNotFoundError) or _refused(chain):
        return f"the Hub does not let this account write {name!r} ({_why(chain)}): {_LOG_IN} with a token that may write there"
    if _rejected(chain):
        return f"the Hub does not take {name} ({_why(chain)}): change what it names, then run again"
    return f"cannot publish {name} ({_why(chain)}): check the network (and HF_ENDPOINT), then run again"


def _dataset_failure(name: str, subset: str | None, gated: bool, error: Exception) -> str:
    from datasets.exceptions import DatasetGenerationError

    chain = _causes(error)
    if _full(chain):
        return _needs_space(name, "")
    if why := _unwritable(chain):
        return _needs_place(name, why)
    if silent := _unanswered(chain):
        return f"cannot reach the Hub for {name} ({silent.why}): {silent.remedy}, or read a copy on disk by --data-dir"
    if isinstance(error, DatasetGenerationError):  # its own text says only that it failed
        why = one_line(error.__cause__ or error)
        return f"expected a data set that can be read, got {name!r} ({why}): fetch its files again, or update pyarrow"
    text = one_line(error)
    if "gated" in text.lower() or (gated and "cannot be accessed" in text):
        return f"{_gated(name, page(name, 'dataset'))}; or read a copy on disk by --data-dir"
    if isinstance(error, ConnectionError):
        return f"cannot reach the Hub for {name} ({text}): check the network, or read a copy on disk by --data-dir"
    known = re.search(r"\['.*?'\]", text)
    if known and ("Config name is missing" in text or "BuilderConfig" in text):
        names = known[0].strip("[]").replace("'", "")
        got = repr(subset) if subset else "none named"
        return f"expected one of the configurations of {name}, got {got}: choose by --set data.subset=NAME, of {names}"
    return f"expected a data set that can be read, got {name!r}: {text}"


def _gated(name: str, address: str) -> str:
    return f"{name} is gated, and this account has no access: accept its terms at {address}, {_LOG_IN}, then run again"


def _full(chain: list[BaseException]) -> bool:
    return any(isinstance(cause, OSError) and is_full(cause) for cause in chain)


def _needs_space(name: str, needed: str) -> str:
    return f"the disk is full, downloading {name}{needed}: free some space, or set HF_HOME to another disk, then run again"


def _unwritable(chain: list[BaseException]) -> str:
    """Why a file in the folder of the Hub's client cannot be used; '' if that is not what failed."""
    from huggingface_hub import constants

    folders = tuple(os.path.join(os.path.realpath(folder), "") for folder in (constants.HF_HOME, constants.HF_HUB_CACHE))
    for cause in chain:
        path = cause.filename if isinstance(cause, OSError) and cause.errno else None
        if isinstance(path, str | os.PathLike) and os.path.join(os.path.realpath(path), "").startswith(folders):
            return os.strerror(getattr(cause, "errno", 0))
    return ""


def _needs_place(name: str, why: str) -> str:
    return f"the cache of the Hub cannot be written ({why}), downloading {name}: set HF_HOME to a folder that can be, then run again"


def _unanswered(chain: list[BaseException]) -> UnansweredError | None:
    return next((cause for cause in chain if isinstance(cause, UnansweredError)), None)


def _causes(error: BaseException | None) -> list[BaseException]:
    """An error and its causes, from the last to the first."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        error = error.__cause__ or error.__context__
    return seen


def _offline(chain: list[BaseException]) -> bool:
    from huggingface_hub.errors import OfflineModeIsEnabled

    return any(isinstance(cause, OfflineModeIsEnabled) for cause in chain)


def _refused(chain: list[BaseException]) -> bool:
    """Whether the Hub answered that this account has no permission."""
    return any(_status(cause) in (401, 403) for cause in chain)


def _rejected(chain: list[BaseException]) -> bool:
    """Whether the Hub answered that it cannot do what was asked for, whatever the network does."""
    return any(400 <= (_status(cause) or 0) < 500 for cause in chain)


def _status(error: BaseException) -> int | None:
    """The HTTP status that the Hub answered."""
    return getattr(getattr(error, "response", None), "status_code", None)


def _why(chain: list[BaseException]) -> str:
    """The Hub's answer, or else at most 160 characters of the first error: the later ones only repeat that something failed."""
    for cause in chain:
        if (status := _status(cause)) is not None:
            answer = getattr(cause, "server_message", None)
            return f"HTTP status {status}" + (f": {' '.join(answer.split()):.120}" if answer else "")
    return f"{one_line(chain[-1]):.160}"
