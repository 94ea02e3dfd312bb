"""Every relative link in the documents leads to a file. Run it from anywhere; it prints those that do not."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"\]\(<?([^)>#\s]+)[^)]*\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def dead_links(document: Path) -> list[str]:
    """The links of one document that lead nowhere; those with a scheme are not followed."""
    links = LINK.findall(FENCE.sub("", document.read_text()))
    return [link for link in links if ":" not in link and not (document.parent / link).exists()]


def main() -> int:
    """Exit status 1 if there is a dead link."""
    documents = sorted(
        [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]
    )
    dead = [
        f"{document.relative_to(ROOT)}: {link}" for document in documents for link in dead_links(document)
    ]
    for line in dead:
        print(f"dead link in {line}")
    return 1 if dead else 0


if __name__ == "__main__":
    sys.exit(main())
