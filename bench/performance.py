"""docs/performance.md: every side of every row, the machine's limits, and why a row falls short of its goal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench import stats, table

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "performance.md"
#: case: what the profile shows and what was tried, for rows that fall short of a goal
NOTES = Path(__file__).with_name("notes.json")
RECORD = Path(__file__).with_name("instructions.json")


def notes() -> dict[str, str]:
    return json.loads(NOTES.read_text())


def missed(result: dict[str, Any]) -> list[str]:
    """The cases of a result that fall short of a goal."""
    return [name for name, found in stats.verdicts(result).items() if any(v.met is False for v in found)]


def limits(result: dict[str, Any]) -> list[str]:
    rows = []
    for name, threads, unit in sorted({(c["name"], c["threads"], c["unit"]) for c in result["ceilings"]}):
        rows.append([name, str(threads), f"{stats.ceiling(result, name, threads):.1f} {unit}"])
    return table.markdown(["limit", "threads", "measured"], rows)


def share_of(result: dict[str, Any], case: dict[str, Any]) -> str:
    """The part of the limit that bounds a row: its products' peak, or the copy's bytes per second."""
    if case["group"] == "matmul" or case["name"].startswith("matmul"):
        peak = "vdpbf16ps peak" if case["group"] == "bfloat16" else stats.PEAK
        return table.fixed(stats.share(result, case, "pullback", peak)) + " of the peak"
    if case["bytes"] >= 1e8:  # smaller work stays in the caches
        return table.fixed(stats.share(result, case, "pullback", "copy, non-temporal stores")) + " of the copy"
    return ""


def others(case: dict[str, Any]) -> str:
    """Every side but pullback: its time, and our time over it."""
    parts = []
    for side in case["sides"]:
        ratio = stats.ratio(case, "pullback", side)
        if side != "pullback" and ratio is not None:
            parts.append(f"{side} {table.amount(stats.value(case, side), case['unit'])} ({ratio:.2f})")
    return ", ".join(parts)


def page(result: dict[str, Any]) -> str:
    """What stands between the marks of docs/performance.md."""
    m, verdicts = result["machine"], stats.verdicts(result)
    lines = [
        f"{m['model']} ({m['family']}), {result['threads']} threads, {result['created'][:10]}, commit"
        f" {result['commit'][:10]}. Command: `{result['command'].strip()}`, then `python bench/table.py --write`.",
        "",
        *limits(result),
        "",
    ]
    for group, cases in table.rows_of(result):
        body = [
            [
                case["name"],
                table.amount(stats.value(case, "pullback"), case["unit"]),
                others(case),
                share_of(result, case),
                table.goal_text(verdicts[case["name"]]),
            ]
            for case in cases
        ]
        header = ["work", "pullback", "others (our time over theirs)", "of the limit", "goal"]
        lines += [f"### {table.GROUPS[group].capitalize()}", "", *table.markdown(header, body), ""]
    known = notes()
    lines += ["### Rows that fall short", ""]
    lines += [f"- **{name}**: {known.get(name, 'not explained yet.')}" for name in missed(result)]
    lines += ["", "### Instructions of small work", "", *instructions()]
    return "\n".join(lines)


def instructions() -> list[str]:
    """Counts that do not depend on load; CI holds them."""
    counted = json.loads(RECORD.read_text())
    return [
        line
        for system, rows in counted.items()
        for line in table.markdown([f"{system}", "instructions"], [[f"`{k}`", f"{v:,}"] for k, v in rows.items()])
    ]


def expected() -> str:
    """docs/performance.md as it should be, given the newest result."""
    path = table.newest()
    return table.replaced(PAGE.read_text(), page(json.loads(path.read_text())) if path else "")
