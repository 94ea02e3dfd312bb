"""What the host's apt knows: Debian mirrors, their keyrings, proxies, and whether expiry counts."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pytest_kernelfs import tools
from pytest_kernelfs.cache import Cache
from pytest_kernelfs.errors import InfrastructureError

_FORMAT = "$(REPO_URI) $(RELEASE) $(COMPONENT) $(SOURCESENTRY)"
_PROXY = re.compile(r'Acquire::(https?)::Proxy(?:::([^ ]+))? "([^"]*)";')
_VALID_UNTIL = re.compile(r'Acquire::Check-Valid-Until "([^"]*)";')
_CONFIGURED_BY = (
    "etc/apt/sources.list",
    "etc/apt/sources.list.d/*",
    "etc/apt/apt.conf",
    "etc/apt/apt.conf.d/*",
)
_NO = {"no", "false", "without", "off", "disable", "0"}


@dataclass(frozen=True)
class AptSource:
    """One suite of one archive in the host's configuration."""

    uri: str
    suite: str
    keyring: Path | None = None


@dataclass(frozen=True)
class AptFacts:
    """All that concerns us; a host without apt has the defaults. ``proxies`` is as for requests."""

    sources: tuple[AptSource, ...] = ()
    check_valid_until: bool = True
    proxies: dict[str, str] = field(default_factory=dict)


def read_apt(cache: Cache) -> AptFacts:
    """Ask the host's apt, or recall its answer if its configuration is still the same.

    Nothing is raised: without apt there is nothing to know.
    """
    # apt can need half a second for this, as long as a whole test.
    record = cache.root / "apt" / f"{_fingerprint()}.json"
    try:
        config, targets = json.loads(record.read_text())
    except (OSError, ValueError):
        config = _ask(["apt-config", "dump"])
        targets = _ask(["apt-get", "indextargets", "--format", _FORMAT, "Created-By: Packages"])
        if config and targets:
            with contextlib.suppress(InfrastructureError):  # a read-only cache stays usable
                cache.write_text(record, json.dumps([config, targets]))
    return AptFacts(tuple(_sources(targets.splitlines())), _check_valid_until(config), _proxies(config))


def _fingerprint() -> str:
    """A name for the state of apt's configuration files."""
    facts = [os.environ.get("APT_CONFIG", "")]
    for path in sorted(path for pattern in _CONFIGURED_BY for path in Path("/").glob(pattern)):
        with contextlib.suppress(OSError):
            status = path.stat()
            facts.append(f"{path} {status.st_mtime_ns} {status.st_size}")
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:32]


def _ask(command: Sequence[str]) -> str:
    program = tools.find(command[0])
    if program is None:
        return ""
    try:
        result = subprocess.run(
            [program, *command[1:]],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=30,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout


def _sources(lines: Iterable[str]) -> Iterable[AptSource]:
    for line in lines:
        fields = line.split()
        if len(fields) != 4:
            continue
        uri, suite, component, entry = fields
        if component == "main" and re.match(r"(?:https?|file):/", uri):
            yield AptSource(uri.rstrip("/"), suite, _signed_by(entry, uri.rstrip("/")))


def _check_valid_until(config: str) -> bool:
    found = _VALID_UNTIL.search(config)
    return found is None or found[1].lower() not in _NO


def _proxies(config: str) -> dict[str, str]:
    proxies = {}
    for scheme, host, proxy in _PROXY.findall(config):
        if proxy:
            key = f"{scheme}://{host}" if host else scheme
            # An empty string keeps requests from falling back to the environment.
            proxies[key] = "" if proxy == "DIRECT" else proxy
    return proxies


def _signed_by(entry: str, uri: str) -> Path | None:
    """The keyring file that a source names, if it does; ``entry`` is apt's ``file:line``.

    apt does not print this field, so it is read from the source's own file. A
    fingerprint or a key written into the source is left to the default keyring.
    """
    path = Path(entry.rpartition(":")[0])
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return None
    blocks = re.split(r"\n\s*\n", text) if path.suffix == ".sources" else text.splitlines()
    for block in blocks:
        found = re.search(r"signed-by\s*[:=]\s*(/[^\s,\]]+)", block, re.IGNORECASE)
        if found and uri in block and not block.lstrip().startswith("#"):
            return Path(found[1])
    return None
