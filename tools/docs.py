"""Writes docs/ops.md and docs/optimizers.md from the registries; with --check fails when a file differs."""

from __future__ import annotations

import sys
from pathlib import Path

import docs_optimizers

import pullback as pb

DOCS = Path(__file__).resolve().parent.parent / "docs"
FAMILIES = {
    "Map": "element by element, with broadcasting",
    "Reduce": "over axes",
    "Row": "passes over rows",
    "Linear": "linear in each argument",
    "View": "windows on the same memory",
    "Custom": "with a derivative of their own",
}


def render() -> str:
    rows = [r for r in pb.ops() if not r["name"].startswith("_")]
    lines = [
        "# Ops",
        "",
        "Made from the registry by `python tools/docs.py`; `python -m pullback ops` prints the same rows. A derivative",
        "`pull` means reverse mode of any order and forward mode, `zero` gradient 0 everywhere, "
        "`none` that none exists.",
        "",
    ]
    for family, what in FAMILIES.items():
        members = sorted((r for r in rows if r["family"] == family), key=lambda r: r["name"])
        if not members:
            continue
        lines += [f"## {family}: {what}", "", "| call | derivative | what it computes |", "|---|---|---|"]
        for r in members:
            doc = " ".join(r["doc"].split("\n\n")[0].split()).replace("|", "\\|")
            signature = r["signature"].replace("|", "\\|")
            lines.append(f"| `{signature}` | {r['derivative']} | {doc} |")
        lines.append("")
    return "\n".join(lines)


def main() -> int:
    same = True
    for name, text in (("ops.md", render()), ("optimizers.md", docs_optimizers.render())):
        target = DOCS / name
        if "--check" not in sys.argv:
            target.parent.mkdir(exist_ok=True)
            target.write_text(text)
            continue
        equal = target.exists() and target.read_text() == text
        print(f"docs/{name} {'is up to date' if equal else 'differs from the registry: run python tools/docs.py'}")
        same = same and equal
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
