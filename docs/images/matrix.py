"""Makes matrix.svg from what pytest printed: ``python matrix.py OUTPUT`` writes it beside this file.

OUTPUT holds the terminal's text in colour: ``COLUMNS=120 pytest --color=yes … > OUTPUT``.
"""

from __future__ import annotations

import re
import sys
from io import StringIO
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

COMMAND = "$ pytest --kernel 5.10 --kernel 6.1 --kernel 6.12 --kernel 7.2 examples/overlay_umount"
# rich's own frame fetches a font from elsewhere; a picture has to do with what is there.
FRAME = re.sub(r"\s*@font-face \{\{.*?\}\}|<!--.*?-->", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)


def chosen(lines: list[str]) -> list[Text]:
    """The command, the matrix, and pytest's last line."""
    texts = [Text.from_ansi(line) for line in lines]
    start = next(i for i, text in enumerate(texts) if re.fullmatch("=+ kernels =+", text.plain))
    end = next(i for i, text in enumerate(texts) if i > start and text.plain.startswith("==="))
    return [Text(COMMAND), *texts[start:end], texts[-1]]


def main() -> None:
    """Read, draw, write."""
    texts = chosen(Path(sys.argv[1]).read_text().splitlines())
    width = max(len(text.plain) for text in texts)
    console = Console(record=True, width=width, force_terminal=True, file=StringIO())
    for text in texts:
        console.print(text, highlight=False, no_wrap=True, crop=False)
    svg = console.export_svg(title="pytest-kernelfs", code_format=FRAME, unique_id="matrix")
    Path(__file__).with_suffix(".svg").write_text(svg.replace("Fira Code, monospace", "monospace"))


if __name__ == "__main__":
    main()
