"""The matrix at the end of a run: tests down, kernels across, in as many blocks as the width needs.

``render`` makes lines of segments, each a text with the verdict that colours
it; ``write_matrix`` hands them to pytest, which knows whether to colour.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from pytest_kernelfs.report.results import Cell, ResultTable

if TYPE_CHECKING:
    import pytest

Segment = tuple[str, str]  # the text, and the verdict whose colour it has ("" for none)
Line = list[Segment]

_MARKUP: Final[Mapping[str, Mapping[str, bool]]] = {
    "passed": {"green": True},
    "failed": {"red": True, "bold": True},
    "error": {"red": True, "bold": True},
    "skipped": {"yellow": True},
    "xfailed": {"yellow": True},
    "xpassed": {"yellow": True, "bold": True},
    "heading": {"bold": True},
}
_WORDS: Final = {
    "passed": "passed",
    "failed": "FAILED",
    "error": "ERROR",
    "skipped": "skip",
    "xfailed": "xfail",
    "xpassed": "XPASS",
}
_TOTALS: Final = ("passed", "failed", "error", "skipped", "xfailed", "xpassed")
_ORDINALS: Final = {2: "2nd", 3: "3rd"}
_TIMELESS: Final = ("error", "skipped")
_INDENT: Final = 2
_GAP: Final = 2
_LONGEST_KERNEL: Final = 20
_SHORTEST_NAME: Final = 16
_MOST_CUT: Final = 1.5  # a name this many times too long is written in full, on a line of its own


@dataclass(frozen=True)
class _Look:
    """How wide the terminal is, and which sign stands for what was cut out."""

    width: int
    cut: str

    def shorten(self, text: str, room: int) -> str:
        """The text, or its beginning and its end (which tells parameters apart)."""
        if len(text) <= room:
            return text
        keep = max(room - len(self.cut), 0)
        tail = keep * 2 // 5
        return text[: keep - tail] + self.cut + text[len(text) - tail :]

    def shorten_path(self, text: str) -> str:
        """The text, or its end, which is what tells files apart."""
        if len(text) <= self.width:
            return text
        return self.cut + text[len(text) - self.width + len(self.cut) :]


def write_matrix(
    terminalreporter: pytest.TerminalReporter, table: ResultTable, legend: Mapping[str, str] | None = None
) -> None:
    """Write the matrix as a section of pytest's summary; nothing if no test ran on a kernel.

    ``legend`` and the order of columns are as for ``render``.
    """
    writer = terminalreporter.config.get_terminal_writer()
    encoding = getattr(getattr(writer, "_file", None), "encoding", None) or "ascii"
    lines = render(table, writer.fullwidth, legend, unicode="utf" in encoding.lower())
    if not lines:
        return
    terminalreporter.write_sep("=", "kernels")
    for line in lines:
        for text, style in line:
            writer.write(text, **_MARKUP.get(style, {}))
        writer.line()


def render(
    table: ResultTable, width: int, legend: Mapping[str, str] | None = None, *, unicode: bool = True
) -> list[Line]:
    """The matrix as lines, none wider than ``width`` columns unless that is absurdly small.

    ``legend`` maps kernel ids to what is to be said about each ("" for nothing); its order is the
    order of the columns, and kernels that it lacks follow. Without ``unicode`` all is plain ASCII.
    """
    if not table:
        return []
    legend = legend or {}
    look = _Look(width, "…" if unicode else "..")
    ran = [kernel for kernel in table.kernels if table.totals(kernel)]
    kernels = [k for k in legend if k in ran] + [k for k in ran if k not in legend]
    lines = _legend_lines(kernels, legend, look)
    for block in _blocks(table, kernels, look):
        if lines:
            lines.append([])
        lines.extend(_block_lines(table, block, look))
    return lines


def plain(lines: Sequence[Line]) -> list[str]:
    """The lines as text without colours."""
    return ["".join(text for text, _ in line) for line in lines]


def cell_text(cell: Cell | None) -> str:
    """``FAILED 4.05s``: the verdict, and the longest measured time where it means something.

    ``passed (2nd)`` is what a test came to when it was run again.
    """
    if cell is None:
        return "-"
    word = _WORDS[cell.verdict]
    if cell.attempts > 1:
        word += f" ({_ORDINALS.get(cell.attempts, f'{cell.attempts}th')})"
    if cell.worst is None or cell.verdict in _TIMELESS:
        return word
    return f"{word} {seconds(cell.worst)}"


def seconds(value: float) -> str:
    """A time with as many digits as tell something: ``0.004s``, ``0.08s``, ``4.05s``, ``12.3s``, ``250s``."""
    for limit, digits in ((0.00995, 3), (9.995, 2), (99.95, 1)):
        if value < limit:
            return f"{value:.{digits}f}s"
    return f"{value:.0f}s"


def _legend_lines(kernels: Sequence[str], legend: Mapping[str, str], look: _Look) -> list[Line]:
    told = [kernel for kernel in kernels if legend.get(kernel)]
    longest = max((len(kernel) for kernel in told), default=0)
    texts = [f"{kernel.ljust(longest)}  {legend[kernel]}" for kernel in told]
    return [[(look.shorten(text, look.width), "")] for text in texts]


@dataclass(frozen=True)
class _Block:
    """Some of the kernels, with the width of each column and of the names beside them."""

    columns: Mapping[str, int]
    names: int


def _blocks(table: ResultTable, kernels: Sequence[str], look: _Look) -> Iterator[_Block]:
    """Share the columns out to as few blocks as the width allows, about the same number in each."""
    longest = max(_SHORTEST_NAME, *(len(_split(test)[1]) for test in table.tests))
    columns = {kernel: _column_width(table, kernel) for kernel in kernels}
    room = look.width - _INDENT - _SHORTEST_NAME
    per_block = max(room // (_GAP + max(columns.values())), 1)
    count = -(-len(kernels) // per_block)
    ends = [-(-len(kernels) * number // count) for number in range(count + 1)]
    for start, end in pairwise(ends):
        share = kernels[start:end]
        used = sum(_GAP + columns[kernel] for kernel in share)
        names = min(longest, max(look.width - _INDENT - used, _SHORTEST_NAME))
        yield _Block({kernel: columns[kernel] for kernel in share}, names)


def _column_width(table: ResultTable, kernel: str) -> int:
    cells = (len(cell_text(table.cell(test, kernel))) for test in table.tests)
    return max(min(len(kernel), _LONGEST_KERNEL), *cells)


def _block_lines(table: ResultTable, block: _Block, look: _Look) -> Iterator[Line]:
    names = block.names
    yield _row("", names, [(look.shorten(k, w).rjust(w), "heading") for k, w in block.columns.items()])
    group = None
    for test, name in _shortened(table.tests, names, look):
        if _split(test)[0] != group:
            group = _split(test)[0]
            yield [(look.shorten_path(group), "heading")]
        if len(name) > names:
            yield [(" " * _INDENT + look.shorten(name, look.width - _INDENT), "")]
            name = ""
        cells = [(table.cell(test, kernel), width) for kernel, width in block.columns.items()]
        yield _row(name, names, [(cell_text(c).rjust(w), c.verdict if c else "") for c, w in cells])
    yield from _total_lines(table, block, names)


def _shortened(tests: Sequence[str], room: int, look: _Look) -> Iterator[tuple[str, str]]:
    """Each test with its name, grouped.

    A name stays whole where cutting would take much of it, or make two look the same.
    """
    groups: dict[str, list[str]] = {}
    for test in tests:
        groups.setdefault(_split(test)[0], []).append(test)
    for members in groups.values():
        names = [_split(test)[1] for test in members]
        short = [look.shorten(name, room) for name in names]
        for test, name, cut in zip(members, names, short, strict=True):
            keep_whole = len(name) > room * _MOST_CUT or short.count(cut) > 1
            yield test, name if keep_whole else cut


def _total_lines(table: ResultTable, block: _Block, names: int) -> Iterator[Line]:
    totals = {kernel: table.totals(kernel) for kernel in table.kernels}
    rows = [(verdict, verdict, {k: total[verdict] for k, total in totals.items()}) for verdict in _TOTALS]
    rows.append(("run again", "xfailed", {kernel: table.repeated(kernel) for kernel in table.kernels}))
    yield [("total", "heading")]
    for name, style, numbers in rows:
        if any(numbers.values()):
            counts = [(numbers[kernel], width) for kernel, width in block.columns.items()]
            yield _row(name, names, [(str(n or "-").rjust(w), style if n else "") for n, w in counts])


def _row(name: str, names: int, cells: Sequence[Segment]) -> Line:
    line: Line = [(" " * _INDENT + name.ljust(names), "")]
    for cell in cells:
        line += [(" " * _GAP, ""), cell]
    return line


def _split(test: str) -> tuple[str, str]:
    """``path::Class::name[parameters]`` as its group (``path::Class``) and its own name."""
    base, bracket, parameters = test.partition("[")
    group, _, name = base.rpartition("::")
    return group, name + bracket + parameters
