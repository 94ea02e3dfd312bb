"""The supervisor on a machine that runs already: brings the agent in, and takes all down when that has gone.

It is started by a command from outside, as root, with its code in memory. It talks with the host over the
standard streams of that command: until the agent is ready on standard output, at its very end on standard
error. It ends when the host hangs up, when the agent ends, and on SIGTERM and SIGHUP; then it kills what
the tests left running and undoes what the journal tells of. The journal lies on the machine, so that the next
supervisor can do that for one that was killed.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import select
import shutil
import signal
import sys
import time
from typing import Any, NoReturn

from pytest_kernelfs.guest import (
    conversation,
    init,
    journal,
    kmsg,
    loops,
    tenant_cgroups,
    tenant_facts,
    tenant_room,
    tidy,
)
from pytest_kernelfs.guest.dispatch import GuestError

REPORT = "kernelfs-report: "
FOLDER = "/run/kernelfs-tenant"
_LOCK = FOLDER + "/lock"
_JOURNAL = "journal"
_POLL_S = 0.01
_TELL_S = 1.0
# What is still in use when all processes are gone is being let go by the kernel.
_PATIENCE_S = 10.0
# linux/prctl.h
_SET_PDEATHSIG, _SET_CHILD_SUBREAPER = 1, 36

_libc = ctypes.CDLL(None, use_errno=True)


def main(settings: dict[str, Any], modules: list[str]) -> NoReturn:
    """Serve one host. ``modules`` are the names of all of the guest's own.

    ``settings``: ``only`` is "facts" to give those alone; ``namespaces`` is whether tests get some of their
    own; ``wait`` is how many seconds to wait for another supervisor on this machine, ``run`` a name of the
    test run: for others of that, its workers, it is waited as long as it takes.
    """
    try:
        _demand_root()
        if settings.get("only") == "facts":
            _answer(tenant_facts.read())
            os._exit(0)
        conversation.import_all(modules)
        _Supervisor(settings).run()
    except (GuestError, OSError) as error:
        _refuse(error)
    os._exit(1)


class _Busy(GuestError):
    """Somebody else works here."""


def _demand_root() -> None:
    if os.geteuid():
        raise GuestError(f"tests need root there, and this is user {os.geteuid()}")


def _answer(facts: dict[str, Any]) -> None:
    os.write(1, json.dumps(facts).encode() + b"\n")


def _refuse(error: Exception) -> None:
    try:
        _answer({"error": str(error), "busy": isinstance(error, _Busy)})
    except OSError:
        pass  # the host is gone


class _Supervisor:
    """One stay on the machine."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._namespaces = bool(settings["namespaces"])
        self._wake, self._woken = _wake_on_signals()
        self._lock = _take_lock(float(settings["wait"]), str(settings["run"]))
        self._removed = [f"from a run before: {what}" for what in tidy_abandoned()]
        self._folder = f"{FOLDER}/{os.getpid()}"
        while os.path.exists(self._folder):
            self._folder += "0"  # of one with our number, who left what cannot be undone yet
        os.mkdir(self._folder, 0o700)
        journal.begin(f"{self._folder}/{_JOURNAL}")
        self._agent = 0

    def run(self) -> NoReturn:
        word = f"kernelfs-{os.urandom(4).hex()}"
        journal.note("boot", _boot_id())
        journal.note("word", word)
        ended = ""
        try:
            own = tenant_cgroups.make(word)
            _libc.prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
            if self._namespaces:
                journal.note("namespaces")
                tenant_room.own_processes()
            self._agent = self._bring_in(own)
            ended = self._wait_for(self._agent)
        except (GuestError, OSError) as error:
            _refuse(error)
        self._leave(ended)

    def _bring_in(self, own: list[tenant_cgroups.Own]) -> int:
        """Start what answers the host; gives its process."""
        alive, held = os.pipe()
        self._told, tell = os.pipe()
        child = os.fork()
        if not child:
            try:
                os.close(held)
                os.close(self._told)
                os.close(self._lock)
                _forget_signals(self._wake)
                _libc.prctl(_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
                if os.read(alive, 1) == b".":  # else the supervisor was killed before it could be told of
                    _become_agent(own, self._namespaces, tell)
            finally:
                os._exit(1)  # whatever happens: to tidy up is not for this process
        os.close(alive)
        os.close(tell)
        os.write(held, b".")
        os.close(held)
        return child

    def _wait_for(self, child: int) -> str:
        """Until the host hangs up, we are told to end, or the agent does; gives how that ended by itself."""
        poller = select.poll()
        poller.register(0, select.POLLRDHUP)
        poller.register(self._woken, select.POLLIN)
        poller.register(self._told, select.POLLIN)
        while True:
            happened = dict(poller.poll())
            pid = 1
            while pid:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == child:
                    self._agent = 0  # its number may be another's from now on
                    return _how_it_ended(status)
            if happened.get(self._told, 0) & select.POLLIN:
                return _how_it_ended(int(os.read(self._told, 16)))
            if self._told in happened:
                poller.unregister(self._told)  # hung up by an agent that we see the end of ourselves
            if 0 in happened or _told_to_end(self._woken):
                return ""

    def _leave(self, ended: str) -> NoReturn:
        # As long as they are there: which these are can be told by where they lie.
        seen_by = self._agent if self._namespaces else os.getpid()
        our_loops = dict(loops.ours_known(journal.entries(), f"/proc/{seen_by}/mountinfo"))
        self._removed += tidy.hurry(journal.entries(), seen_by)
        left = tidy.end_children(_PATIENCE_S)
        removed, more = tidy.tidy(journal.entries(), our_loops, _PATIENCE_S)
        if not more:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._removed += removed
        report = {"ended": ended, "removed": self._removed, "left": left + more}
        try:
            os.write(2, f"{REPORT}{json.dumps(report)}\n".encode())
        except OSError:
            pass  # the host is gone
        os._exit(0)


def _become_agent(own: list[tenant_cgroups.Own], namespaces: bool, tell: int) -> NoReturn:
    """Be where the tests are, tell the host, and serve it; ``tell`` leads to the supervisor."""
    try:
        init.set_environment()
        os.chdir("/")
        tenant_cgroups.enter(own)
        mounts = tenant_room.enter_namespaces(own) if namespaces else tenant_room.take_folders(own)
        facts = {"log_start": kmsg.mark("kernelfs: tests begin here"), "mounts": mounts}
    except (GuestError, OSError) as error:
        _refuse(error)
        os._exit(0)
    if namespaces:
        _serve_from_a_child(facts, tell)
    os.close(tell)
    _answer(facts)
    conversation.converse_and_exit(conversation.DescriptorIO(0, 1), _log)


def _serve_from_a_child(facts: dict[str, Any], tell: int) -> NoReturn:
    """As the first process of the namespace: take in the orphans of the tests, which end with it.

    When the agent has ended, the namespaces are still needed to see what is in the way of the others' end:
    the supervisor is told, and ends this process.
    """
    agent = os.fork()
    if not agent:
        os.close(tell)
        _answer(facts)
        conversation.converse_and_exit(conversation.DescriptorIO(0, 1), _log)
    while True:
        try:
            pid, status = os.wait()
        except ChildProcessError:
            signal.pause()
            continue
        if pid == agent:
            os.write(tell, str(status).encode())


def _how_it_ended(status: int) -> str:
    """In words, if it did not end by itself because the host had hung up."""
    if not os.WIFSIGNALED(status):
        return ""
    number = os.WTERMSIG(status)
    try:
        return f"was ended by {signal.Signals(number).name}"
    except ValueError:
        return f"was ended by signal {number}"


def _log(line: str) -> None:
    sys.stderr.write(f"kernelfs: {line}\n")
    sys.stderr.flush()


def _wake_on_signals() -> tuple[int, int]:
    """A pipe that gets a byte for each signal: its number. Gives the ends to write to and to read from."""
    readable, writable = os.pipe()
    os.set_blocking(readable, False)
    os.set_blocking(writable, False)
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return writable, readable


def _forget_signals(wake: int) -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    os.close(wake)


def _told_to_end(woken: int) -> bool:
    try:
        numbers = os.read(woken, 4096)
    except BlockingIOError:
        return False
    return bool(set(numbers) & {signal.SIGTERM, signal.SIGHUP})


def _take_lock(wait: float, run: str) -> int:
    """Be the only supervisor on this machine; the host is told of what takes long.

    Raises: _Busy if one of another run stays for longer than that.
    """
    os.makedirs(FOLDER, mode=0o700, exist_ok=True)
    lock = os.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    hung_up = select.poll()
    hung_up.register(0, select.POLLRDHUP)
    deadline, told = time.monotonic() + wait, time.monotonic()
    while not _try_lock(lock):
        holder, _, theirs = os.pread(lock, 256, 0).decode(errors="replace").partition(" ")
        now = time.monotonic()
        if run and theirs == run:
            deadline = now + wait
        if now > deadline:
            raise _Busy(
                f"tests of another run work there (process {holder or '?'}), and were not done within "
                f"{wait:g} s; devices, sysctls and the kernel's log are the machine's, so one run at a time "
                "can use it"
            )
        if now > told + _TELL_S:
            _answer({"waiting": holder})
            told = now
        if hung_up.poll(1000 * _POLL_S):
            os._exit(0)
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()} {run}".encode(), 0)
    return lock


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def tidy_abandoned() -> list[str]:
    """Undo what killed supervisors could not; gives what that was. The lock must be held."""
    said: list[str] = []
    for name in sorted(os.listdir(FOLDER)):
        folder = f"{FOLDER}/{name}"
        if name.isdigit():
            removed, left = _tidy_one(f"{folder}/{_JOURNAL}")
            said += [*removed, *(f"could not remove {what}" for what in left)]
            if not left:
                shutil.rmtree(folder, ignore_errors=True)
    return said


def _tidy_one(path: str) -> tidy.Said:
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return [], []
    try:
        entries = journal.entries(handle)
    finally:
        os.close(handle)
    if ["boot", _boot_id()] not in entries:
        return [], []  # all that it tells of went with the kernel that it was done to
    return tidy.tidy(entries, dict(loops.ours_known(entries, None)), _PATIENCE_S)


def collect() -> list[str]:
    """From the machine itself, as root: the same, unless a supervisor is at work; gives what was undone."""
    if os.geteuid() or not os.path.isdir(FOLDER):
        return []
    lock = os.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        return tidy_abandoned() if _try_lock(lock) else []
    finally:
        os.close(lock)


def _boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()
