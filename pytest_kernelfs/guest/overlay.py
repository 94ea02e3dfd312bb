"""Overlay mounts through either mount API, with any number of layers, and with the kernel's own reasons."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from typing import NamedTuple

from pytest_kernelfs.guest import files, kmsg, mount_api, syscalls
from pytest_kernelfs.guest.dispatch import GuestError

# mount(2) reads one page of options, and cuts off what is beyond without a word.
_MOST_OPTIONS = 4095
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_FEW = 8


class Plan(NamedTuple):
    """An overlay to mount.

    ``lower`` are the layers, topmost first, ``data`` those that only hold data for metacopy. Without
    ``upper`` it is read-only. ``options`` are those of mount(8), ``api`` is "old", "new" or "auto".
    """

    target: str
    lower: list[str]
    data: list[str]
    upper: str
    work: str
    options: str
    api: str

    def stack(self) -> str:
        return _stacked(self.lower, self.data)

    def folders(self) -> list[tuple[str, str]]:
        return [("upperdir", self.upper), ("workdir", self.work)] if self.upper else []

    def text(self, stack: str, options: str) -> str:
        """The options as mount(2) takes them."""
        words = [f"lowerdir={stack}", *(f"{key}={path}" for key, path in self.folders())]
        return ",".join([*words, *([options] if options else [])])


class Refused(Exception):
    """The kernel did not mount it: by which API, with which error, and the lines it gave for that."""

    def __init__(self, api: str, number: int, said: list[str]) -> None:
        super().__init__(api, number, said)
        self.api = api
        self.number = number
        self.said = said


def make_layers(layers: list[tuple[str, dict[str, str | bytes]]], owner: int = 0) -> None:
    """Create layers: pairs of a folder and what is to be in it; all of it is the user ``owner``'s."""
    for path, contents in layers:
        files.make_tree(path, contents)
        for folder, _, names in os.walk(path) if owner else ():
            for made in [folder, *(f"{folder}/{name}" for name in names)]:
                os.lchown(made, owner, owner)


def mount_overlay(
    target: str, lower: list[str], data: list[str], upper: str, work: str, options: str, api: str
) -> str:
    """Mount an overlay, see Plan; gives the API that was used. Raises: GuestError with the kernel's words."""
    plan = Plan(target, lower, data, upper, work, options, api)
    files.make_folders([target, upper, work] if upper else [target])
    log = kmsg.open_at_end()
    try:
        return attempt(plan)
    except Refused as refused:
        raise GuestError(explain(plan, refused, log)) from None
    finally:
        os.close(log)


def attempt(plan: Plan) -> str:
    """Mount; gives the API that was used. Raises: Refused; GuestError if there is no way to say so much."""
    used = _choose(plan)
    said: list[str] = []
    try:
        if used == "old":
            _mount_old(plan)
        else:
            _mount_new(plan, said)
    except OSError as error:
        raise Refused(used, error.errno or 0, said) from None
    return used


def explain(plan: Plan, refused: Refused, log: int) -> str:
    """What was tried and what the kernel said, also in its ``log``, opened before."""
    return (
        f"mount -t overlay -o '{_shown(plan)}' overlay {plan.target} ({refused.api} mount API): "
        f"{os.strerror(refused.number)}; {kmsg.heard(log, refused.said)}{_hint(plan, refused)}"
    )


def appends() -> bool:
    """Whether this kernel takes layers one by one (the parameters lowerdir+ and datadir+)."""
    return mount_api.takes("overlay", ("lowerdir+", "/")) and mount_api.takes(
        "overlay", ("lowerdir+", "/"), ("datadir+", "/")
    )


def _choose(plan: Plan) -> str:
    if plan.api != "auto":
        return plan.api
    fits = len(plan.text(plan.stack(), plan.options)) <= _MOST_OPTIONS
    return "old" if fits or not appends() else "new"


def _stacked(lower: list[str], data: list[str]) -> str:
    return ":".join(lower) + "".join("::" + path for path in data)


def _mount_old(plan: Plan) -> None:
    flags, left = syscalls.split_options(plan.options)

    def call(stack: str) -> None:
        text = plan.text(stack, left)
        if len(text) > _MOST_OPTIONS:
            way = 'use api="new"' if appends() else "it has no lowerdir+ (Linux 6.7) to take them one by one"
            raise GuestError(
                f"{_count(plan)} layers need {len(text)} bytes of mount options, and this kernel's mount(2) "
                f"takes {_MOST_OPTIONS}; {way}"
            )
        syscalls.mount("overlay", plan.target, "overlay", flags, text)

    _with_stack(plan, _MOST_OPTIONS - len(plan.text("", left)), call)


def _mount_new(plan: Plan, said: list[str]) -> None:
    flags, parameters = mount_api.plain_options(plan.options)
    with mount_api.Context("overlay") as context:

        def finish() -> None:
            for key, value in [*plan.folders(), *parameters]:
                context.set(key, value)
            context.mount(plan.target, flags)

        def call(stack: str) -> None:
            if len(stack) >= mount_api.MOST_VALUE:
                raise GuestError(
                    f"{_count(plan)} layers need {len(stack)} bytes, fsconfig(2) takes "
                    f"{mount_api.MOST_VALUE - 1}, and overlay in this kernel has no lowerdir+ (Linux 6.7) to "
                    'take them one by one; use api="old" or "auto"'
                )
            context.set("lowerdir", stack)
            finish()

        try:
            if not appends():
                _with_stack(plan, mount_api.MOST_VALUE - 1, call)
                return
            for key, paths in (("lowerdir+", plan.lower), ("datadir+", plan.data)):
                for path in paths:
                    context.set(key, path)
            finish()
        finally:
            said += context.log()


def _with_stack(plan: Plan, room: int, call: Callable[[str], None]) -> None:
    """Call with the text for lowerdir; through short links, for that while, where it would be too long.

    The kernel follows the links while it mounts, and does not need them after that.
    """
    paths = [*plan.lower, *plan.data]
    if len(plan.stack()) <= room and not any(mark in path for path in paths for mark in ":,\\"):
        call(plan.stack())
        return
    folder = _short_folder()
    try:
        links = [f"{folder}/{_short(number)}" for number in range(len(paths))]
        for path, link in zip(paths, links):  # noqa: B905  (strict= is not in Python 3.9)
            os.symlink(path, link)
        call(_stacked(links[: len(plan.lower)], links[len(plan.lower) :]))
    finally:
        shutil.rmtree(folder)


def _short_folder() -> str:
    number = 0
    while True:
        folder = "/" + _short(number)
        try:
            os.mkdir(folder)
        except FileExistsError:
            number += 1
            continue
        return folder


def _short(number: int) -> str:
    rest, digit = divmod(number, len(_DIGITS))
    return (_short(rest) if rest else "") + _DIGITS[digit]


def _count(plan: Plan) -> int:
    return len(plan.lower) + len(plan.data)


def _shown(plan: Plan) -> str:
    if _count(plan) <= _FEW:
        return plan.text(plan.stack(), plan.options)
    more = f" and {len(plan.data)} for data only" if plan.data else ""
    return plan.text(f"({len(plan.lower)} layers from {plan.lower[0]} on{more})", plan.options)


def _hint(plan: Plan, refused: Refused) -> str:
    """What the kernel does not say, or says in a way that is easily missed."""
    left = f"{plan.work}/work/incompat/volatile"
    if plan.work and os.path.exists(left):
        return (
            f"; {left} is there: a volatile overlay has used these folders, and nothing tells whether all of "
            "its data reached the disk. Take fresh folders, or remove that one if the data is sound"
        )
    if refused.number == errno.ENOSYS:
        return "; the kernel has no such mount API (Linux 5.2 and later do)"
    return ""
