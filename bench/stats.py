"""From raw samples to the numbers of the table. Nothing else computes a ratio."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

GOALS = Path(__file__).with_name("goals.json")
PEAK = "FMA peak, 512 bits"
PEAK_V3 = "FMA peak, 256 bits"


def value(case: dict[str, Any], side: str) -> float | None:
    """The median over all blocks of a block's median."""
    blocks = case["sides"].get(side)
    return median(median(b["samples"]) for b in blocks) if blocks else None


def pairs(case: dict[str, Any], side: str, peer: str) -> list[float]:
    """side / peer for every pair of neighbouring blocks."""
    theirs = {(b["round"], b["block"]): median(b["samples"]) for b in case["sides"].get(peer, [])}
    return [
        median(b["samples"]) / theirs[b["round"], b["block"]]
        for b in case["sides"].get(side, [])
        if theirs.get((b["round"], b["block"]))
    ]


def ratio(case: dict[str, Any], side: str, peer: str) -> float | None:
    """The median of the pairs' ratios; below 1 where side is the faster."""
    found = pairs(case, side, peer)
    return median(found) if found else None


def worst(case: dict[str, Any], side: str = "pullback") -> tuple[float, str] | None:
    """The ratio to the peer that looks best beside us, and that peer's name: the headline."""
    found = [(r, peer) for peer in case["sides"] if not peer.startswith("pullback") if (r := ratio(case, side, peer))]
    return max(found) if found else None


def ceiling(result: dict[str, Any], name: str, threads: int | None = None) -> float | None:
    """The best sample of a ceiling at this thread count: interference only ever lowers one."""
    threads = result["threads"] if threads is None else threads
    found = [s for c in result["ceilings"] if c["name"] == name and c["threads"] == threads for s in c["samples"]]
    return max(found) if found else None


def share(
    result: dict[str, Any], case: dict[str, Any], side: str, peak: str, threads: int | None = None
) -> float | None:
    """The part of a ceiling that a side reaches: operations of a compute peak, ideal bytes of a copy. A peak of FMA
    that no loop reached falls back to the narrower one."""
    copies = peak.startswith("copy")
    top = ceiling(result, peak, threads)
    if top is None and peak == PEAK:
        top = ceiling(result, PEAK_V3, threads)
    seconds, work = value(case, side), case["bytes" if copies else "flop"]
    return work / seconds / 1e9 / top if seconds and top and work else None


@dataclass
class Verdict:
    """A goal beside what was measured. measured is None where the run has no number for it."""

    goal: dict[str, Any]
    measured: float | None

    @property
    def met(self) -> bool | None:
        if self.measured is None:
            return None
        if "at_most" in self.goal:
            return self.measured <= self.goal["at_most"]
        return self.measured >= self.goal["at_least"]

    @property
    def bound(self) -> float:
        return self.goal.get("at_most", self.goal.get("at_least"))

    def __str__(self) -> str:
        sign = "<=" if "at_most" in self.goal else ">="
        word = {None: "not measured", True: "met", False: "not met"}[self.met]
        return f"{sign} {self.bound:g} {word}"


def measure(result: dict[str, Any], case: dict[str, Any], goal: dict[str, Any]) -> float | None:
    """The number that a goal speaks of."""
    side, kind = goal.get("side", "pullback"), goal["kind"]
    if kind == "value":
        return value(case, side)
    if kind == "share":
        return share(result, case, side, goal.get("of", PEAK), goal.get("threads"))
    if kind != "ratio":
        raise ValueError(f"goals.json: unknown kind {kind!r}")
    if "to" in goal:
        return ratio(case, side, goal["to"])
    found = worst(case, side)
    return found[0] if found else None


def goals() -> list[dict[str, Any]]:
    """goals.json, with one row per case."""
    rows = json.loads(GOALS.read_text())["goals"]
    return [{**row, "case": name} for row in rows for name in row["cases"]]


def verdicts(result: dict[str, Any]) -> dict[str, list[Verdict]]:
    """Every goal of every case of the result, by case."""
    cases = {case["name"]: case for case in result["cases"]}
    out: dict[str, list[Verdict]] = {name: [] for name in cases}
    for goal in goals():
        if goal["case"] in cases:
            out[goal["case"]].append(Verdict(goal, measure(result, cases[goal["case"]], goal)))
    return out
