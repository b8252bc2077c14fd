"""Which form each saved tensor takes under a budget of bytes: a multiple-choice knapsack. No graph is needed."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["Candidate", "Choice", "choose"]

#: Below this many tensors the least error is found exactly.
EXACT_BELOW = 200
#: Partial plans kept per tensor before the exact search gives up.
STATES = 200_000


@dataclass(frozen=True)
class Candidate:
    """A form that a saved tensor can take.

    Attributes:
        name: What it is called in reports.
        bytes: What it keeps.
        time: What it costs, in seconds.
        error: What it adds to the gradient's squared error; 0 for exact forms.
    """

    name: str
    bytes: int
    time: float = 0.0
    error: float = 0.0


@dataclass(frozen=True)
class Choice:
    """A candidate per tensor, and their sums.

    Attributes:
        picks: The index of the candidate, one per tensor.
        bytes: In all.
        time: In all, seconds.
        error: In all.
        exact: Whether no other plan has less error, or the same in less time.
    """

    picks: tuple[int, ...]
    bytes: int
    time: float
    error: float
    exact: bool


def choose(tensors: Sequence[Sequence[Candidate]], budget_bytes: int) -> Choice:
    """One candidate per tensor: the least total error within the budget, and of equal error the least time.

    If candidates without error fit, only those are taken and time is minimised. Under 200 tensors the result is the
    optimum, by dynamic programming over the plans that no other plan beats in bytes, error and time; otherwise, and
    where there are too many of those, the greedy walk along the lower convex hulls of the tensors, whose error exceeds
    the optimum by at most one step of one tensor.

    Args:
        tensors: The candidates of each tensor.
        budget_bytes: What all picks may keep together.

    Raises:
        ValueError: a tensor without candidates, a negative or NaN number, or a budget below the least possible, which
            the message says.

    Example:
        >>> from pullback.memory.planner import Candidate, choose
        >>> forms = [Candidate("input", 400), Candidate("3 bits", 40, error=0.1)]
        >>> plan = choose([forms, forms], 500)
        >>> plan.picks, plan.bytes, plan.error
        ((1, 0), 440, 0.1)
    """
    _check(tensors)
    least = sum(min(c.bytes for c in t) for t in tensors)
    if budget_bytes < least:
        raise ValueError(
            f"plan: {budget_bytes} bytes are below the least possible, {least} bytes\n"
            "help: raise the budget, or allow smaller forms"
        )
    exact_forms = [[c for c in t if c.error == 0] for t in tensors]
    if all(exact_forms) and sum(min(c.bytes for c in t) for t in exact_forms) <= budget_bytes:
        forms = exact_forms
        costs = [[(c.bytes, c.time, 0.0) for c in t] for t in forms]
    else:
        forms = [list(t) for t in tensors]
        costs = [[(c.bytes, c.error, c.time) for c in t] for t in forms]
    picks = _greedy(costs, budget_bytes)
    exact = False
    if len(tensors) < EXACT_BELOW:
        found = _frontier(costs, budget_bytes, picks)
        exact = found is not None
        picks = found or picks
    chosen = [t[i] for t, i in zip(forms, picks, strict=True)]
    original = tuple(t.index(c) for t, c in zip(([*t] for t in tensors), chosen, strict=True))
    return Choice(
        original,
        sum(c.bytes for c in chosen),
        sum(c.time for c in chosen),
        sum(c.error for c in chosen),
        exact,
    )


def _check(tensors: Sequence[Sequence[Candidate]]) -> None:
    for i, t in enumerate(tensors):
        if not t:
            raise ValueError(f"plan: tensor {i} has no candidate\nhelp: keeping it as it is, is one")
        for c in t:
            if not (c.bytes >= 0 and 0 <= c.time < float("inf") and 0 <= c.error < float("inf")):
                raise ValueError(
                    f"plan: candidate {c.name!r} of tensor {i} has bytes={c.bytes}, time={c.time}, error={c.error}\n"
                    "help: all are finite and not negative"
                )


Cost = tuple[int, float, float]  # bytes, what is minimised, what breaks ties


def _hull(options: list[Cost]) -> list[int]:
    """Candidates on the lower convex hull, by growing bytes: from the smallest to the least cost."""
    order = sorted(range(len(options)), key=lambda i: options[i])
    hull: list[int] = []
    for i in order:
        size, cost, tie = options[i]
        if hull and (cost, tie) >= options[hull[-1]][1:]:
            continue
        while len(hull) > 1:
            (b0, c0, _), (b1, c1, _) = options[hull[-2]], options[hull[-1]]
            if (c0 - c1) * (size - b0) > (c0 - cost) * (b1 - b0):
                break
            hull.pop()
        hull.append(i)
    return hull


def _steps(costs: list[list[Cost]]) -> list[tuple[float, int, float, int, int]]:
    """(gain per byte, bytes, gain, tensor, candidate) of every hull's steps, the best first."""
    steps = []
    for t, options in enumerate(costs):
        hull = _hull(options)
        for a, b in pairwise(hull):
            more, gain = options[b][0] - options[a][0], options[a][1] - options[b][1]
            steps.append((gain / more if more else float("inf"), more, gain, t, b))
    return sorted(steps, key=lambda s: -s[0])  # stable: the steps of a tensor keep their order


def _greedy(costs: list[list[Cost]], budget: int) -> list[int]:
    """The steps with the most gain per byte first; one that does not fit ends its tensor, and the last bytes go to any
    candidate that still improves."""
    picks = [_hull(options)[0] for options in costs]
    left = budget - sum(options[i][0] for options, i in zip(costs, picks, strict=True))
    ended = set()
    for _, more, _, t, b in _steps(costs):
        if t in ended:
            continue
        if more > left:
            ended.add(t)
            continue
        picks[t], left = b, left - more
    for t, options in enumerate(costs):
        now = options[picks[t]]
        fits = [i for i, c in enumerate(options) if c[0] - now[0] <= left]
        best = min(fits, key=lambda i: options[i][1:])
        if options[best][1:] < now[1:]:
            picks[t], left = best, left - (options[best][0] - now[0])
    return picks


class _Rest:
    """A lower bound of the cost of tensors t, t + 1, ...: their relaxed knapsack, along the joint hull."""

    def __init__(self, costs: list[list[Cost]]) -> None:
        n = len(costs)
        lows = [options[_hull(options)[0]] for options in costs]
        self.bytes, base = [0] * (n + 1), [0.0] * (n + 1)
        for t in reversed(range(n)):
            self.bytes[t], base[t] = self.bytes[t + 1] + lows[t][0], base[t + 1] + lows[t][1]
        steps = _steps(costs)
        self.curves: list[tuple[list[int], list[float], list[float]]] = []
        for t in range(n + 1):
            sizes, values, slopes = [self.bytes[t]], [base[t]], []
            for slope, more, gain, owner, _ in steps:
                if owner >= t:
                    sizes.append(sizes[-1] + more)
                    values.append(values[-1] - gain)
                    slopes.append(slope)
            self.curves.append((sizes, values, [*slopes, 0.0]))

    def bound(self, t: int, left: int) -> float:
        sizes, values, slopes = self.curves[t]
        i = bisect_right(sizes, left) - 1
        return values[i] - slopes[i] * (left - sizes[i]) if slopes[i] < float("inf") else values[i]


def _frontier(costs: list[list[Cost]], budget: int, start: list[int]) -> list[int] | None:
    """The optimum, or None if too many partial plans stay undecided.

    A partial plan is dropped if another keeps no more bytes at no more cost, or if even the relaxed rest cannot bring
    it below the greedy plan.
    """
    rest = _Rest(costs)
    known = sum(options[i][1] for options, i in zip(costs, start, strict=True))
    limit = known + 1e-9 * abs(known)
    # (bytes, cost, tie, back): back is (back of the plan before, candidate)
    plans: list[tuple[int, float, float, object]] = [(0, 0.0, 0.0, None)]
    for t, options in enumerate(costs):
        useful = _undominated(options)
        grown = []
        for size, cost, tie, back in plans:
            for i in useful:
                b, c, s = options[i]
                left = budget - size - b
                if left >= rest.bytes[t + 1] and cost + c + rest.bound(t + 1, left) <= limit:
                    grown.append((size + b, cost + c, tie + s, (back, i)))
        grown.sort(key=lambda p: p[:3])
        plans = []
        for p in grown:
            if not plans or p[1:3] < plans[-1][1:3]:
                plans.append(p)
        if len(plans) > STATES:
            return None
    if not plans:
        return None
    back = min(plans, key=lambda p: p[1:3])[3]
    picks = []
    while back is not None:
        back, i = back  # type: ignore[misc]
        picks.append(i)
    return picks[::-1]


def _undominated(options: list[Cost]) -> list[int]:
    kept: list[int] = []
    for i in sorted(range(len(options)), key=lambda i: options[i]):
        if not kept or options[i][1:] < options[kept[-1]][1:]:
            kept.append(i)
    return kept
