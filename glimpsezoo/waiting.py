"""Waiting for the Hub: bounded, and said while it lasts.

The Hub's client, and `datasets` on top of it, repeat a failed request up to five times and obey any `Retry-After`, silently. Here the one
function through which the client sends its requests waits instead: at most `PATIENCE` seconds without an answer, after which an error that
the client does not catch ends the request.
"""

import importlib
import logging
import re
import time
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any

from glimpsezoo.errors import GlimpseZooError, counted, one_line

PATIENCE = 30.0  # seconds of pauses and unanswered tries in a row
WRITE = 60.0  # seconds for an answer to a request that writes; to one that reads, it is HF_HUB_DOWNLOAD_TIMEOUT (10 s)
LONGEST = 8.0  # seconds: pauses double from 1 s up to this
SLOWEST, WINDOW = 1024, 10.0  # an answer of fewer bytes per second, over so many seconds, counts as none
PROGRESS = 4 * 2**20  # bytes of an answer after which patience is whole again
_BUSY = {408, 429, 500, 502, 503, 504}
_REFUSED = {429, 503}  # the Hub did not act on the request, so even a commit can be repeated
_log = logging.getLogger("glimpsezoo")


class UnansweredError(GlimpseZooError, ConnectionError):
    """The Hub did not answer within the patience. A ConnectionError, because that is how `datasets` calls a Hub out of reach."""

    def __init__(self, why: str, remedy: str = "run again later") -> None:
        super().__init__(f"the Hub does not answer ({why}): {remedy}; the same command goes on from here")
        self.why, self.remedy = why, remedy

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.why, self.remedy)  # from a decoding worker


class Patience:
    """How long this process has waited for the Hub since its last answer."""

    def __init__(self) -> None:
        self.tries = 0
        self.spent = 0.0
        self.answered = False

    def restore(self) -> None:
        """Note an answer."""
        self.tries, self.spent, self.answered = 0, 0.0, True

    def wait(self, why: str, *, since: float, asked: float | None = None) -> None:
        """Pause before the next try. since: when the failed try began. asked: the seconds for which the Hub asks.

        Raises `UnansweredError` if that would take longer than the patience.
        """
        self.tries += 1
        self.spent += time.monotonic() - since
        pause = max(min(2.0 ** (self.tries - 1), LONGEST), asked or 0.0)
        if self.spent + pause > PATIENCE:
            tries, self.tries = self.tries, 0
            if asked == pause:
                raise UnansweredError(f"{why}; it asks to wait {_duration(pause)}", "run again after that")
            raise UnansweredError(f"{why}, in {counted(tries, 'attempt')}")
        self.spent += pause
        say(f"the Hub does not answer ({why}): waiting {_duration(pause)} before attempt {self.tries + 1}")
        time.sleep(pause)


patience = Patience()


def say(line: str) -> None:
    """Tell the user why it takes longer; on the standard error output, unless `logging` is set up otherwise."""
    _log.warning(line)


def bound() -> None:
    """Bound the waiting of all requests that the Hub's client sends from now on."""
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils import _http

    made = _http._GLOBAL_CLIENT_FACTORY  # the user may have set another
    if not isinstance(made, _Bounded):
        set_client_factory(_Bounded(made))


class _Bounded:
    """Makes clients that wait within bounds."""

    def __init__(self, factory: Callable[[], Any]) -> None:
        self.factory = factory

    def __call__(self) -> Any:
        client = self.factory()
        client.send = partial(_send, library_of(client), client.send)
        return client


def library_of(client: Any) -> Any:
    """The HTTP library of the Hub's client: httpx, or httpx2 in newer versions."""
    return importlib.import_module(type(client).__module__.partition(".")[0])


def _send(library: Any, send: Callable[..., Any], request: Any, *, stream: bool = False, **options: Any) -> Any:
    """Replaces the client's `send`, through which every request goes."""
    if request.url.host.startswith("datasets-server."):  # `datasets` can do without it
        _limit(request)
        return send(request, stream=stream, **options)
    if request.method == "POST":
        request.read()  # so that it can be sent again; the client itself repeats an upload from its file
    commits = "/commit/" in request.url.path
    while True:
        _limit(request)
        began = time.monotonic()
        try:
            response = send(request, stream=True, **options)
            response.stream = _watched(library, response.stream)
            if response.status_code not in (_REFUSED if commits else _BUSY):
                if not stream:
                    response.read()
                return response
            why, asked, failed = f"HTTP status {response.status_code}", _asked(response.headers), library.NetworkError("busy")
            response.close()
        except library.TransportError as error:
            unsent = isinstance(error, (library.ConnectError, library.ConnectTimeout))
            if unsent and not patience.answered:  # there may be no network
                raise UnansweredError(reason(error), "check the network (and HF_ENDPOINT)") from error
            if commits and not unsent:
                raise UnansweredError(reason(error), "the commit may have arrived, so look at the repository") from error
            why, asked, failed = reason(error), None, error
        patience.wait(why, since=began, asked=asked)
        if not isinstance(request.stream, library.ByteStream):
            raise failed


def _limit(request: Any) -> None:
    """Limit the time for which a request waits for each part of its answer."""
    from huggingface_hub import constants

    reads = request.method in {"GET", "HEAD"} or "/paths-info/" in request.url.path
    longest, given = constants.HF_HUB_DOWNLOAD_TIMEOUT if reads else WRITE, request.extensions.get("timeout") or {}
    request.extensions["timeout"] = {part: min(given.get(part) or longest, longest) for part in ("connect", "read", "write", "pool")}


def _watched(library: Any, stream: Any) -> Any:
    """The body of an answer, which restores patience as it comes, and times out if it comes too slowly."""

    class Watched(library.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            came, lately, start = 0, 0, time.monotonic()
            for chunk in stream:
                came, lately = came + len(chunk), lately + len(chunk)
                if came >= PROGRESS:
                    patience.restore()
                    came = 0
                if time.monotonic() - start > WINDOW:
                    if lately < SLOWEST * WINDOW:
                        raise library.ReadTimeout(f"less than {SLOWEST} bytes per second")
                    lately, start = 0, time.monotonic()
                yield chunk
            patience.restore()

        def close(self) -> None:
            stream.close()

    return Watched()


def reason(error: Exception) -> str:
    """What went wrong with a request, without addresses."""
    if "Timeout" in type(error).__name__:
        return f"{one_line(error):.80}" if "bytes" in str(error) else "no answer in time"
    return f"{one_line(error):.120}"


def _asked(headers: Any) -> float | None:
    """The seconds for which an answer asks: by `Retry-After`, a number or a date, or by the Hub's own `ratelimit`."""
    if limit := re.search(r'"\w+"\s*;\s*r\s*=\s*0\s*;\s*t\s*=\s*(\d{1,9})', headers.get("ratelimit") or ""):
        return float(limit[1])
    text = (headers.get("Retry-After") or "").strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def _duration(seconds: float) -> str:
    """A number of seconds as text.

    >>> _duration(8), _duration(3600)
    ('8 s', '3600 s (60 min)')
    """
    return f"{seconds:.0f} s" + (f" ({seconds / 60:.0f} min)" if seconds >= 120 else "")
