"""What ssh says when it fails, and what that means for whoever has to mend it."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

# ssh's own exit status, whatever went wrong; a command may give it as well, but then ssh is silent.
SSH_FAILED = 255
_SHOWN_LINES = 6
# The frame that ssh draws around its warnings.
_FRAME = re.compile(r"^@.*@?$|^\s*$")


@dataclass(frozen=True)
class _Cause:
    """``pattern`` in what ssh printed means ``what``; ``next_step`` mends it.

    In it, {ssh} is the command and the machine, {trial} a command to try, {config} ssh's configuration.
    """

    pattern: re.Pattern[str]
    what: str
    next_step: str


def _cause(pattern: str, what: str, next_step: str) -> _Cause:
    return _Cause(re.compile(pattern, re.IGNORECASE), what, next_step)


# The first that matches is it: the later lines of a story are its consequences.
_CAUSES = (
    _cause(
        r"REMOTE HOST IDENTIFICATION HAS CHANGED",
        "its host key is not the one that is known for it",
        "if the machine was installed anew, forget the old key (ssh-keygen -R NAME, or edit the file that "
        "ssh names) and connect once by hand; if it was not, somebody else may be answering",
    ),
    _cause(
        r"host key is known for .* requested strict checking|Host key verification failed",
        "its host key is not known here, and unknown keys are not accepted",
        "connect once by hand ('{ssh}') and compare the fingerprint, or put its key into ~/.ssh/known_hosts",
    ),
    _cause(
        r"UNPROTECTED PRIVATE KEY FILE|Bad owner or permissions on",
        "ssh refuses a file that others can read or write",
        "take their permissions away (chmod 600) from the file that ssh names",
    ),
    _cause(
        r"Too many authentication failures|Permission denied \(",
        "it refuses our key",
        "make '{trial}' work: name the right key with IdentityFile in "
        "{config} or load it into ssh-agent, and have its public part in ~/.ssh/authorized_keys there "
        "(nobody is asked for passwords)",
    ),
    _cause(
        r"Could not resolve hostname",
        "there is no host of that name",
        "check the spelling, and the Host entries of {config}",
    ),
    _cause(
        r"Connection refused",
        "nothing listens there",
        "start sshd on the machine, or give the right port (ssh://user@host:port, or Port in {config})",
    ),
    _cause(
        r"Connection timed out|Operation timed out|timed out waiting|timed out during banner exchange|"
        r"No route to host|Network is unreachable|Host is down",
        "it does not answer",
        "see that the machine is up and that no firewall or VPN is in the way",
    ),
    _cause(
        r"Bad configuration option|bad configuration options|Can't open user config file|"
        r"keyword .* extra arguments|missing argument",
        "ssh does not accept its configuration",
        "mend the file and line that ssh names",
    ),
    _cause(
        r"Unable to negotiate|no matching .* found",
        "it shares no algorithm with the ssh here",
        "allow one of those that it offers in {config}",
    ),
    _cause(
        r"kex_exchange_identification|banner exchange|Connection (closed|reset)",
        "it closed the connection before anybody logged in",
        "see that it is sshd that listens there and lets this host in (MaxStartups, hosts.deny, its log)",
    ),
)


def explain(host: str, printed: str, config_file: Path | None = None) -> str:
    """A complete sentence on why ``host`` could not be reached, from what ssh printed.

    ``config_file``: ssh's configuration, if it is not the user's own.
    """
    for cause in _CAUSES:
        if cause.pattern.search(printed):
            next_step = cause.next_step.format(
                ssh=_ssh(host, config_file),
                trial=trial(host, config_file),
                config=config_file or "~/.ssh/config",
            )
            return f"cannot reach {host} over ssh: {cause.what}; {next_step}. {words(printed)}"
    return f"cannot reach {host} over ssh; see that '{trial(host, config_file)}' works. {words(printed)}"


def trial(host: str, config_file: Path | None) -> str:
    """What a user can type to see whether we could reach the machine."""
    return _ssh("-o BatchMode=yes " + host, config_file) + " true"


def _ssh(words: str, config_file: Path | None) -> str:
    return f"ssh {words}" if config_file is None else f"ssh -F {shlex.quote(str(config_file))} {words}"


def words(printed: str) -> str:
    """ssh's own last lines, indented, without the frames it draws."""
    lines = [line.strip() for line in printed.splitlines() if not _FRAME.match(line.strip())]
    kept = lines[-_SHOWN_LINES:]
    return "ssh said:\n" + "\n".join(f"  {line}" for line in kept) if kept else "ssh said nothing."
