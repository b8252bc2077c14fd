"""Renders results: for the terminal, and README's table from the newest file under bench/results/.

python bench/table.py [FILE]     prints a result (the newest)
python bench/table.py --write    renews README.md;  --check fails where README and result differ
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench import stats  # noqa: E402
from bench.libs import PEERS, SIDES  # noqa: E402

README = ROOT / "README.md"
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
GROUPS = {
    "overhead": "call overhead",
    "small": "small work",
    "ops": "element-wise",
    "rows": "row ops",
    "matmul": "matmul",
    "optimizer": "optimizer step",
    "training": "training step",
    "bfloat16": "bfloat16",
    "footprint": "footprint",
}


def dump(result: dict[str, Any]) -> str:
    """JSON with one line per block of samples."""
    text = json.dumps(result, indent=1)
    for inner in (r"\[[^\[\]{}]*\]", r"\{[^{}]*\}"):
        text = re.sub(inner, lambda m: re.sub(r"\s*\n\s*", " ", m.group()), text)
    return text.replace("[ ", "[").replace(" ]", "]").replace("{ ", "{").replace(" }", "}") + "\n"


def newest() -> Path | None:
    """The newest complete result; names are dates."""
    found = sorted((ROOT / "bench" / "results").glob("*.json"))
    return found[-1] if found else None


def amount(value: float | None, unit: str) -> str:
    """A value for people, with three digits; durations in ns, us, ms or s."""
    if value is None:
        return ""
    if unit == "s":
        scale, unit = next(
            ((s, u) for s, u in ((1e-9, "ns"), (1e-6, "us"), (1e-3, "ms")) if value < 999.5 * s), (1.0, "s")
        )
        value /= scale
    return f"{value:.0f} {unit}" if value >= 999.5 else f"{value:#.3g}".rstrip(".") + f" {unit}"


def fixed(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def rows_of(result: dict[str, Any]) -> Iterable[tuple[str, list[dict[str, Any]]]]:
    for group in GROUPS:
        cases = [c for c in result["cases"] if c["group"] == group]
        if cases:
            yield group, cases


def goal_text(goals: list[stats.Verdict]) -> str:
    """Every goal of a row, with the side and the peer it speaks of where they are not the usual ones."""
    parts = []
    for v in goals:
        who = [v.goal["side"].removeprefix("pullback-")] if "side" in v.goal else []
        who += ["of the peak"] if v.goal["kind"] == "share" else []
        who += [f"to {v.goal['to']}"] if "to" in v.goal else []
        parts.append(" ".join([*who, str(v)]))
    return "; ".join(parts)


def aligned(lines: list[list[str]]) -> str:
    """Columns padded to their widest cell, empty ones left out; the first and the last are flush left."""
    used = [i for i in range(len(lines[0])) if any(line[i] for line in lines[1:])]
    lines = [[line[i] for i in used] for line in lines]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    last = len(widths) - 1
    return "\n".join(
        "  ".join(
            c.ljust(w) if i in (0, last) else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def console(result: dict[str, Any]) -> str:
    """All rows with every side, the ratio to each peer, its spread, and the goals."""
    verdicts = stats.verdicts(result)
    lines = [["case", *SIDES, "/torch", "/heap", "spread", "of peak", "goals"]]
    for _, cases in rows_of(result):
        for case in cases:
            worst = stats.worst(case)
            found = sorted(stats.pairs(case, "pullback", worst[1])) if worst else []
            spread = f"{found[len(found) // 4]:.2f}-{found[-1 - len(found) // 4]:.2f}" if found else ""
            sides = [amount(stats.value(case, s), case["unit"]) for s in SIDES]
            ratios = [fixed(stats.ratio(case, "pullback", p)) for p in ("torch", "torch-heap")]
            share = fixed(stats.share(result, case, "pullback", stats.PEAK)) if case["group"] == "matmul" else ""
            lines.append([case["name"], *sides, *ratios, spread, share, goal_text(verdicts[case["name"]])])
    ceilings = sorted({(c["name"], c["threads"], c["unit"]) for c in result["ceilings"]})
    notes = [f"{n}, threads {t}: {stats.ceiling(result, n, t):.1f} {u}" for n, t, u in ceilings]
    every = [v.met for goals in verdicts.values() for v in goals]
    notes.append(f"goals: {every.count(True)} met, {every.count(False)} not met, {every.count(None)} not measured")
    busy = [b.get("others", 0.0) for c in result["cases"] for blocks in c["sides"].values() for b in blocks]
    if busy and sum(busy) / len(busy) > 0.1:
        notes.append(f"the machine was not quiet: others used {sum(busy) / len(busy):.2f} cores on average")
    if result["dirty"]:
        notes.append("the sources differ from the commit")
    return "\n".join([aligned(lines), "", *notes])


def markdown(header: list[str], body: list[list[str]]) -> list[str]:
    rule = ["---", *["---:"] * (len(header) - 2), "---"]
    return ["| " + " | ".join(line) + " |" for line in [header, rule, *body]]


def readme(result: dict[str, Any]) -> str:
    """What stands between the marks in README.md."""
    verdicts = stats.verdicts(result)
    body, products = [], []
    for group, cases in rows_of(result):
        for case in cases:
            worst, goals = stats.worst(case), goal_text(verdicts[case["name"]])
            if case["refused"]:
                goals = "; ".join(sorted(set(case["refused"]))) + (f"; {goals}" if worst else "")
            if group == "matmul":
                products.append(product(result, case, goals))
                continue
            sides = [amount(stats.value(case, s), case["unit"]) for s in ("pullback", "torch", "torch-heap")]
            body.append([case["name"], *sides, headline(case, worst), goals])
    m, peak = result["machine"], stats.ceiling(result, stats.PEAK) or stats.ceiling(result, stats.PEAK_V3)
    copy = max((s for c in result["ceilings"] if c["unit"] == "GB/s" for s in c["samples"]), default=None)
    torch = result["versions"].get("torch", "none").split(";")[0]
    lines = [
        f"{m['model']} ({m['family']}), {result['threads']} threads, {result['created'][:10]}, commit"
        f" {result['commit'][:10]}, PyTorch {torch}, kernels {kernels(result)}."
        f" Limits measured in the same run: {fixed(peak, 0)} GFLOP/s (FMA), {fixed(copy, 0)} GB/s (copy).",
        "PyTorch ran twice, as shipped and with a heap that keeps its memory; ratio is our time over the faster of the"
        " two, so below 1 pullback is faster. Outputs and gradients are compared before anything is timed.",
        "Renew it by `python -m pullback bench` and `python bench/table.py --write`.",
        "",
        *markdown(["work", "pullback", "PyTorch", "with kept heap", "ratio", "goal"], body),
    ]
    if products:
        header = ["GFLOP/s, float32", "pullback", "of the peak", "v3", "PyTorch", "ratio", "v3 ratio", "goal"]
        lines += ["", *markdown(header, products), ""]
        lines += [matmul_note(result)]
    return "\n".join(lines)


def headline(case: dict[str, Any], worst: tuple[float, str] | None) -> str:
    """The ratio, and the peer's time where it has no column."""
    if worst is None:
        return ""
    value, peer = worst
    if peer in PEERS:
        return fixed(value)
    return f"{fixed(value)} ({peer.removeprefix('torch-')}: {amount(stats.value(case, peer), case['unit'])})"


def kernels(result: dict[str, Any]) -> str:
    found = re.search(r"\((\w+)\)", result["versions"].get("pullback", ""))
    return found.group(1) if found else "of the default level"


def product(result: dict[str, Any], case: dict[str, Any], goals: str) -> list[str]:
    """One line of the table of products."""

    def speed(*sides: str) -> str:
        best = min((v for s in sides if (v := stats.value(case, s))), default=None)
        return fixed(case["flop"] / best / 1e9, 0) if best else ""

    ratios = [fixed(w[0]) if (w := stats.worst(case, side)) else "" for side in ("pullback", "pullback-v3")]
    share = fixed(stats.share(result, case, "pullback", stats.PEAK))
    return [case["name"], speed("pullback"), share, speed("pullback-v3"), speed("torch", "torch-heap"), *ratios, goals]


def matmul_note(result: dict[str, Any]) -> str:
    """What bounds the two libraries on this CPU."""
    wide, narrow = stats.ceiling(result, stats.PEAK), stats.ceiling(result, stats.PEAK_V3)
    text = "v3: with `PULLBACK_ISA=v3`, AVX2 kernels."
    if "AMD" in result["machine"]["model"]:
        text += " PyTorch's matrix library (MKL) takes its AVX2 path on AMD processors."
    if wide and narrow:
        text += f" The FMA peak is {wide:.0f} GFLOP/s with 512-bit and {narrow:.0f} with 256-bit registers."
    return text


def replaced(text: str, table: str) -> str:
    """README's text with another table."""
    head, _, rest = text.partition(BEGIN)
    _, mark, tail = rest.partition(END)
    if not mark:
        raise SystemExit(f"README.md lacks {BEGIN} or {END}")
    return f"{head}{BEGIN}\n{table}\n{END}{tail}" if table else f"{head}{BEGIN}\n{END}{tail}"


def expected() -> str:
    """README.md as it should be, given the newest result."""
    path = newest()
    return replaced(README.read_text(), readme(json.loads(path.read_text())) if path else "")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    from bench import performance  # it builds on this module

    if options.write:
        README.write_text(expected())
        performance.PAGE.write_text(performance.expected())
    elif options.check:
        pages = ((README, expected), (performance.PAGE, performance.expected))
        stale = [path.name for path, wanted in pages if path.read_text() != wanted()]
        print("\n".join(f"{name} differs: run python bench/table.py --write" for name in stale) or "the pages are new")
        return 1 if stale else 0
    else:
        path = options.file or newest()
        if path is None:
            raise SystemExit("no result under bench/results/\nhelp: python -m pullback bench makes one")
        print(console(json.loads(path.read_text())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
