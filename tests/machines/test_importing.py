"""Modules of the host, imported by a guest, which here is a local process that runs the guest's own code."""

from __future__ import annotations

import importlib.util
import marshal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import pytest_kernelfs
from pytest_kernelfs.errors import GuestCommandError
from pytest_kernelfs.guest import importing
from pytest_kernelfs.guest.importing import ABSENT, NAMESPACE, REFUSED, SOURCE
from pytest_kernelfs.machines.channel import GuestChannel
from pytest_kernelfs.machines.importing import module_for_guest
from tests.local_guest import converse
from tests.machines.test_channel import PATIENCE_S, run

FILES = {
    "shop/__init__.py": "from .prices import PRICE\nNAME = 'shop'\n",
    "shop/prices.py": "from shop.deep.taxes import rate\nPRICE = 100 * rate()\n",
    "shop/deep/taxes.py": "def rate():\n    return 2\n\ndef fail():\n    raise ValueError('no tax')\n",
    "shop/odd.py": "# coding: latin-1\nTEXT = '\\xfc'\n",
    "shop/typed.py": "from pytest_kernelfs import VM\nfrom pytest_kernelfs.errors import UsageError\n"
    "def use(vm: VM) -> None: ...\n",
    "shop/late.py": "VALUE = 7\n",
    "shop/optional.py": "try:\n    import compiled\nexcept ImportError as error:\n    WHY = str(error)\n",
    "broken.py": "def (\n",
    "json.py": "raise SystemError\n",
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Modules that only this process finds; they are never imported here."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="latin-1")
    (tmp_path / f"compiled{EXTENSION_SUFFIXES[0]}").touch()
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    assert "shop" not in sys.modules


class FakeChannel:
    """The guest's end of a call, whose host has no modules."""

    def __init__(self, name: str, asked: list[str]) -> None:
        self._name, self._asked = name, asked

    def send(self, question: tuple[Any, ...]) -> None:
        self._asked.append(f"{self._name} asks for {question[1]}")

    def receive(self) -> tuple[str]:
        return (ABSENT,)


@pytest.fixture
def channel(project: Path) -> Iterator[GuestChannel]:
    channel, guest = converse()
    yield channel
    channel.close()
    guest.wait(PATIENCE_S)


def test_what_a_guest_is_told(project: Path) -> None:
    source = FILES["shop/__init__.py"].encode()
    assert module_for_guest("shop") == (SOURCE, source, b"", str(project / "shop/__init__.py"), True)
    assert module_for_guest("shop.deep") == (NAMESPACE,)
    assert module_for_guest("shop.deep.taxes")[4] is False
    code = marshal.loads(module_for_guest("shop.late", MAGIC_NUMBER)[2])
    assert code.co_filename == str(project / "shop/late.py")
    assert module_for_guest("broken", MAGIC_NUMBER)[2] == b""
    for absent in ("nowhere", "shop.nowhere", "shop.late.x", "json", "os.path", "", "shop."):
        assert module_for_guest(absent) == (ABSENT,)
    kind, why = module_for_guest("compiled")
    assert kind == REFUSED
    assert "the module compiled is an extension in machine code" in why


def test_modules_that_are_loaded_are_found_where_they_are() -> None:
    kind, source, _, path, is_package = module_for_guest(__name__)
    assert (kind, Path(path), is_package) == (SOURCE, Path(__file__), False)
    assert source == Path(__file__).read_bytes()


def test_packages_that_were_made_up_are_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "made_up", ModuleType("made_up"))
    assert module_for_guest("made_up") == (NAMESPACE,)


def test_packages_come_with_what_they_import(channel: GuestChannel) -> None:
    assert run(channel, "import shop\nreturn shop.PRICE, shop.__file__ is not None") == (200, True)
    assert run(channel, "from shop.odd import TEXT\nreturn TEXT") == "\xfc"


def test_each_module_is_sent_once(channel: GuestChannel, project: Path) -> None:
    assert run(channel, "import shop\nreturn shop.NAME") == "shop"
    for name in ("__init__", "prices"):
        (project / f"shop/{name}.py").unlink()
    assert run(channel, "import shop.prices\nreturn shop.prices.PRICE") == 200


def test_the_standard_library_is_the_guests_own(channel: GuestChannel) -> None:
    assert run(channel, "import json\nreturn json.dumps([1])") == "[1]"


def test_our_own_package_is_there_for_annotations(channel: GuestChannel) -> None:
    # A machine has an empty one.
    run(channel, "import pytest_kernelfs\ndel pytest_kernelfs.__getattr__")
    assert run(channel, "from shop import typed\nreturn typed.use.__name__, typed.VM.__name__") == (
        "use",
        "VM",
    )
    with pytest.raises(
        GuestCommandError, match=r"pytest_kernelfs\.VM is of the host; in the machine there is"
    ):
        run(channel, "import pytest_kernelfs\npytest_kernelfs.VM(None)")
    with pytest.raises(GuestCommandError, match="has no attribute 'vm' in the machine"):
        run(channel, "import pytest_kernelfs\npytest_kernelfs.vm")


def test_what_is_nowhere_is_an_ordinary_error(channel: GuestChannel) -> None:
    with pytest.raises(GuestCommandError, match=r"ModuleNotFoundError.*No module named 'nowhere'"):
        run(channel, "import nowhere")


def test_machine_code_is_refused_where_it_is_needed(channel: GuestChannel) -> None:
    with pytest.raises(GuestCommandError, match=r"ImportError.*compiled is an extension in machine code"):
        run(channel, "import compiled")
    assert "only modules of pure Python" in run(channel, "from shop.optional import WHY\nreturn WHY")


def test_tracebacks_show_the_module(channel: GuestChannel, project: Path) -> None:
    with pytest.raises(GuestCommandError) as caught:
        run(channel, "from shop.deep import taxes\ntaxes.fail()")
    assert f'File "{project}/shop/deep/taxes.py", line 5, in fail' in str(caught.value)
    assert "raise ValueError('no tax')" in str(caught.value)
    with pytest.raises(GuestCommandError, match=r"SyntaxError[\s\S]*broken\.py"):
        run(channel, "import broken")


def test_threads_may_import(channel: GuestChannel) -> None:
    """Parts of a package that is there: Python breaks up threads that import both crosswise."""
    body = """
from concurrent.futures import ThreadPoolExecutor
import importlib
import shop
with ThreadPoolExecutor(4) as pool:
    names = ["shop.late", "shop.odd", "shop.typed", "shop.optional"]
    return [module.__name__ for module in pool.map(importlib.import_module, names)]
"""
    assert run(channel, body) == ["shop.late", "shop.odd", "shop.typed", "shop.optional"]


def test_a_forked_process_may_not(channel: GuestChannel) -> None:
    body = """
import os
read, write = os.pipe()
if not os.fork():
    try:
        import shop
    except ImportError as error:
        os.write(write, str(error).encode())
    os._exit(0)
os.wait()
return os.read(read, 1000).decode()
"""
    assert run(channel, body).startswith(
        "shop cannot be had from the host in a process that the call has forked"
    )
    assert run(channel, "import shop\nreturn shop.PRICE") == 200


def test_after_a_call_nothing_is_asked_for(channel: GuestChannel) -> None:
    body = """
import threading
go, seen = threading.Event(), []
def work():
    go.wait(300)
    try:
        import shop.late
    except ImportError as error:
        seen.append(type(error).__name__)
import sys
sys.kept = go, seen, threading.Thread(target=work)
sys.kept[2].start()
"""
    run(channel, body)
    result: Any = channel.call("name", ("tests.machines.test_importing", "finish"), (), {}, PATIENCE_S)
    assert result == ["ModuleNotFoundError"]


def finish() -> list[str]:
    """Called by name in the guest, beside any source."""
    go, seen, thread = sys.kept  # type: ignore[attr-defined]
    go.set()
    thread.join(300)
    return list(seen)


def test_each_call_asks_over_its_own_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one may end before its answer comes."""
    asked: list[str] = []
    both = threading.Barrier(2, timeout=PATIENCE_S)
    monkeypatch.setattr(importing, "_channels", [])
    others = [finder for finder in sys.meta_path if finder is not importing._finder]
    monkeypatch.setattr(sys, "meta_path", [importing._finder, *others])
    monkeypatch.setattr(pytest_kernelfs, "__getattr__", None, raising=False)

    def call(name: str) -> None:
        with importing.from_host(FakeChannel(name, asked)):
            both.wait()
            assert importlib.util.find_spec(f"module_of_{name}") is None
            both.wait()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(call, ["one", "two"]))
    assert sorted(asked) == ["one asks for module_of_one", "two asks for module_of_two"]
