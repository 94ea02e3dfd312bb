"""Getting files from a mirror: streamed, verified, resumed, and with errors that name the URL."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from pytest_kernelfs.errors import InfrastructureError
from pytest_kernelfs.kernels.settings import Progress

if TYPE_CHECKING:
    import requests

_CHUNK = 1 << 18
_ATTEMPTS = 4
_SILENT_ATTEMPTS = 2
_TIMEOUT = (8, 20)  # seconds to connect, and between two pieces of data
_WORTH_ANOTHER_TRY = {408, 425, 429, 500, 502, 503, 504}


class MissingFileError(InfrastructureError):
    """The server answered that it has no such file."""


class UnreachableError(InfrastructureError):
    """The server could not be reached, or broke off each time; ``reason`` is short."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.args = (message, reason)  # both survive pickling
        self.reason = reason


class AttemptError(Exception):
    """One attempt failed; ``fatal`` if another one is pointless, ``silent`` if no server answered."""

    def __init__(self, reason: str, *, fatal: bool = False, silent: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.fatal = fatal
        self.silent = silent


class Web:
    """Downloads for one resolver; its methods may be called from several threads.

    A host that gave no answer is not asked again: a run without network must
    not wait once per file. ``proxies`` is as for requests.
    """

    pause = 0.5  # seconds before the second attempt, growing from there

    def __init__(self, proxies: Mapping[str, str] | None = None, progress: Progress | None = None) -> None:
        self._proxies = dict(proxies or {})
        self._progress = progress
        self._down: dict[str, str] = {}
        self._local = threading.local()

    def read(self, url: str, limit: int) -> bytes:
        """The content of a small file, of at most ``limit`` bytes.

        Raises: MissingFileError; UnreachableError; InfrastructureError if it is longer.
        """
        content = bytearray()
        for _ in self._attempts(url):
            content.clear()
            with self._attempt(url), self._open(url, 0) as (_, chunks):
                for chunk in chunks:
                    content += chunk
                    if len(content) > limit:
                        raise InfrastructureError(
                            f"{shown(url)} is longer than {limit} bytes, so it is not what it should be; "
                            "check the mirror"
                        )
                return bytes(content)
        raise self._given_up(url)

    def download(self, url: str, target: Path, *, size: int, sha256: str, what: str) -> None:
        """Write a file of ``size`` bytes and the given hash to ``target``, resuming where it broke off.

        Raises: MissingFileError; UnreachableError; InfrastructureError if size or hash are wrong.
        """
        with target.open("wb") as file:
            part = _Part(file, size, what, self._progress)
            for _ in self._attempts(url):
                with self._attempt(url), self._open(url, part.done) as (start, chunks):
                    part.rewind(start)
                    for chunk in chunks:
                        part.add(chunk, url)
                    if part.done < size:
                        raise AttemptError(f"the connection ended after {part.done} of {size} bytes")
                    break
            else:
                raise self._given_up(url)
        part.verify(sha256, url)

    def _attempts(self, url: str) -> Iterator[int]:
        host = urlsplit(url).netloc
        self._local.reason = ""
        self._local.silences = 0
        for number in range(_ATTEMPTS):
            if host in self._down:
                self._local.reason = self._down[host]
                return
            if number:
                time.sleep(self.pause * number)
            yield number

    @contextmanager
    def _attempt(self, url: str) -> Iterator[None]:
        """Swallow what is worth another attempt, and note it."""
        try:
            yield
        except AttemptError as error:
            self._local.reason = error.reason
            if error.silent:
                self._count_silence(urlsplit(url).netloc, error.reason)
            if error.fatal:
                raise self._given_up(url) from error

    def _count_silence(self, host: str, reason: str) -> None:
        self._local.silences += 1
        if self._local.silences >= _SILENT_ATTEMPTS:
            self._down[host] = reason

    def _given_up(self, url: str) -> UnreachableError:
        reason: str = self._local.reason
        return UnreachableError(
            f"cannot get {shown(url)}: {reason}; check the network and the proxy, or choose another mirror "
            "with --kernelfs-debian-mirror URL (ini: kernelfs_debian_mirror)",
            reason,
        )

    @contextmanager
    def _open(self, url: str, start: int) -> Iterator[tuple[int, Iterator[bytes]]]:
        """The offset that the content really starts at, and its chunks."""
        if urlsplit(url).scheme == "file":
            with _open_file(url) as chunks:
                yield 0, chunks
            return
        with self._request(url, start) as response:
            yield (start if response.status_code == 206 else 0), _chunks(response)

    @contextmanager
    def _request(self, url: str, start: int) -> Iterator[requests.Response]:
        import requests

        # "identity": some servers would otherwise unpack or repack what we are to hash.
        headers = {"Accept-Encoding": "identity", "User-Agent": "pytest-kernelfs"}
        if start:
            headers["Range"] = f"bytes={start}-"
        try:
            response = self._session().get(
                url, headers=headers, stream=True, timeout=_TIMEOUT, proxies=self._proxies or None
            )
        except requests.RequestException as error:
            lasting = not isinstance(error, (requests.ConnectionError, requests.Timeout))
            raise AttemptError(_reason(error), fatal=lasting, silent=_is_silence(error)) from error
        with response:
            _check_status(response, url)
            yield response

    def _session(self) -> requests.Session:
        if not hasattr(self._local, "session"):
            import requests

            self._local.session = requests.Session()
        session: requests.Session = self._local.session
        return session


class _Part:
    """A file on its way: what has arrived, and its hash so far."""

    def __init__(self, file: Any, size: int, what: str, progress: Progress | None) -> None:
        self._file = file
        self._size = size
        self._what = what
        self._progress = progress
        self._digest = hashlib.sha256()
        self.done = 0

    def rewind(self, start: int) -> None:
        """Begin anew if the server did not go on where we wanted."""
        if start != self.done:
            self._file.seek(0)
            self._file.truncate()
            self._digest = hashlib.sha256()
            self.done = 0

    def add(self, chunk: bytes, url: str) -> None:
        self.done += len(chunk)
        if self.done > self._size:
            raise _wrong(self._what, url, f"{self._size} bytes", "more")
        self._file.write(chunk)
        self._digest.update(chunk)
        if self._progress is not None:
            self._progress(self._what, self.done, self._size)

    def verify(self, sha256: str, url: str) -> None:
        seen = self._digest.hexdigest()
        if seen != sha256:
            raise _wrong(self._what, url, f"sha256 {sha256}", seen)


def _wrong(what: str, url: str, expected: str, seen: str) -> InfrastructureError:
    return InfrastructureError(
        f"{what} from {shown(url)} is not what the signed index promises: expected {expected}, seen {seen}; "
        "the mirror may be mid-update: try again, or choose another with --kernelfs-debian-mirror URL"
    )


def shown(url: str) -> str:
    """The URL without user name and password, for messages."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


@contextmanager
def _open_file(url: str) -> Iterator[Iterator[bytes]]:
    path = Path(unquote(urlsplit(url).path))
    try:
        file = path.open("rb")
    except FileNotFoundError as error:
        raise MissingFileError(f"there is no file {path}; check the mirror's folder") from error
    except OSError as error:
        raise AttemptError(error.strerror or str(error), fatal=True) from error
    with file:
        yield iter(lambda: file.read(_CHUNK), b"")


def _check_status(response: requests.Response, url: str) -> None:
    status = response.status_code
    if status in (404, 410):
        raise MissingFileError(f"{shown(url)} is not there (HTTP {status}); the mirror does not carry it")
    if status not in (200, 206):
        retry = status in _WORTH_ANOTHER_TRY or status == 416
        raise AttemptError(f"the server answered HTTP {status} {response.reason}", fatal=not retry)


def _chunks(response: requests.Response) -> Iterator[bytes]:
    import urllib3

    try:
        yield from response.raw.stream(_CHUNK, decode_content=False)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise AttemptError(_reason(error), silent=_is_silence(error)) from error


def _is_silence(error: BaseException) -> bool:
    """Whether the host may be down altogether; one that closes a connection is not."""
    import requests
    import urllib3

    if isinstance(error, (requests.Timeout, requests.exceptions.ProxyError, urllib3.exceptions.TimeoutError)):
        return True
    text = str(error)
    return "Failed to establish a new connection" in text or "Failed to resolve" in text


def _reason(error: BaseException) -> str:
    """The innermost cause in a few words; requests' own text is a paragraph of class names."""
    import requests

    if isinstance(error, requests.exceptions.SSLError):
        return "its TLS certificate was not accepted"
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy cannot be reached"
    if isinstance(error, requests.exceptions.Timeout):
        return "no answer in time"
    text = str(error)
    for seen, words in _KNOWN_REASONS.items():
        if seen in text:
            return words
    return f"{type(error).__name__}: {text[:120]}"


_KNOWN_REASONS = {
    "Name or service not known": "its host name is not known",
    "name resolution": "its host name cannot be looked up",
    "nodename nor servname": "its host name is not known",
    "No address associated": "its host name has no address",
    "Connection refused": "the connection was refused",
    "Network is unreachable": "the network is unreachable",
    "No route to host": "there is no route to the host",
    "Connection reset": "the connection was reset",
    "Remote end closed": "the connection was closed",
    "IncompleteRead": "the connection ended early",
    "timed out": "no answer in time",
}
