"""Where the time of a program goes: per op, per module, forward and backward."""

from __future__ import annotations

import bisect
import itertools
import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

from . import _core as C


@dataclass(frozen=True)
class Event:
    """One call of an op, one step of backward, or one call of a module.

    Attributes:
        name: of the op, or the module's class.
        kind: "forward", "backward" or "module".
        start: nanoseconds of `time.monotonic_ns`.
        end: the same.
        bytes: asked of the allocator meanwhile.
        thread: a number per thread.
        sequence: number of the newest node at the end; for "backward" that of the node.
    """

    name: str
    kind: str
    start: int
    end: int
    bytes: int
    thread: int
    sequence: int


@dataclass
class Row:
    """The sums over all events of one name; times in seconds, without what other ops did inside ("self" time)."""

    name: str
    calls: int = 0
    forward: float = 0.0
    backward: float = 0.0
    bytes: int = 0


class profile:
    """Records every op, backward step and module call inside the block, on all threads.

    An op that is made of others keeps only its own share of time and bytes; a module has the whole time of its calls,
    modules inside included. What `linear1` of a model does in backward is told by the nodes that its forward made.
    Outside a block nothing is recorded and ops pay one branch.

    Attributes:
        events: the list of `Event`, in the order of their starts.
        seconds: length of the block.

    Example:
        >>> import pullback as pb
        >>> model = pb.nn.Sequential(pb.nn.Linear(4, 8), pb.nn.Tanh())
        >>> with pb.profile() as p:
        ...     model(pb.ones((2, 4))).sum().backward()
        >>> sorted((row.name, row.calls) for row in p.ops())
        [('linear', 1), ('sum', 1), ('tanh', 1)]
        >>> [row.name for row in p.modules()]
        ['Sequential', 'Sequential.0 (Linear)', 'Sequential.1 (Tanh)']
    """

    _active: ClassVar[profile | None] = None

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.seconds = 0.0
        self._calls: list[tuple[str, int, int, int, int, int]] = []  # path, start, end, first, last node, thread
        self._stacks = threading.local()

    def __enter__(self) -> profile:
        if profile._active is not None:
            raise RuntimeError("profile: a profile is being recorded already\nhelp: leave that block first")
        from .nn.module import watched_calls

        profile._active = self
        self._watching = watched_calls(self._watch)
        self._watching.__enter__()
        C._set_profiling(True)
        self._start = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds = time.perf_counter() - self._start
        C._set_profiling(False)
        self._watching.__exit__(kind, error, trace)
        profile._active = None
        for name, start, end, size, sequence, thread, backward in C._take_profile():
            kind_ = "backward" if backward else "forward"
            self.events.append(Event(name, kind_, start, end, size, thread, sequence))
        for path, start, end, _first, last, thread in self._calls:
            self.events.append(Event(path, "module", start, end, 0, thread, last))
        self.events.sort(key=lambda e: (e.start, -e.end))

    def _watch(self, plain: Callable[..., Any], module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        stack = self._stacks.__dict__.setdefault("paths", [])
        path = self._path(stack, module)
        stack.append((path, module))
        first, start = C._sequence(), time.monotonic_ns()
        try:
            return plain(module, *args, **kwargs)
        finally:
            stack.pop()
            self._calls.append((path, start, time.monotonic_ns(), first, C._sequence(), C._thread_number()))

    @staticmethod
    def _path(stack: list[tuple[str, Any]], module: Any) -> str:
        """Class of the outermost module, then the attribute names that lead to this one."""
        kind = type(module).__name__
        if not stack:
            return kind
        outer, parent = stack[-1]
        names = (name for name, child in parent.named_modules() if child is module)
        return f"{outer.split(' (')[0]}.{next(names, '?')} ({kind})"

    # ---- sums

    def _own(self) -> list[tuple[Event, int, int]]:
        """Every op event with its own nanoseconds and bytes: less those of the events inside it."""
        out: list[tuple[Event, int, int]] = []
        open_: dict[int, list[list[Any]]] = defaultdict(list)
        for e in self.events:
            if e.kind == "module":
                continue
            stack = open_[e.thread]
            while stack and stack[-1][0].end <= e.start:
                out.append(tuple(stack.pop()))
            if stack:
                stack[-1][1] -= e.end - e.start
                stack[-1][2] -= e.bytes
            stack.append([e, e.end - e.start, e.bytes])
        for stack in open_.values():
            out.extend(tuple(entry) for entry in stack)
        return out

    def ops(self) -> list[Row]:
        """A row per op name, the slowest first. What runs inside a backward step counts as that op's backward."""
        rows: dict[str, Row] = {}
        steps = [e for e in self.events if e.kind == "backward"]
        inside = _inside(steps)
        for e, took, size in self._own():
            step = inside(e)
            row = rows.setdefault(step.name if step else e.name, Row(step.name if step else e.name))
            row.bytes += size
            if step:
                row.backward += took * 1e-9
            else:
                row.calls += 1
                row.forward += took * 1e-9
        return sorted(rows.values(), key=lambda r: -(r.forward + r.backward))

    def modules(self) -> list[Row]:
        """A row per module path, in the order of first calls: whole forward time, and the backward of its nodes."""
        steps = _Sums((e.sequence, e.end - e.start) for e in self.events if e.kind == "backward")
        taken: dict[int, _Sums] = {}
        for thread in {e.thread for e in self.events}:
            taken[thread] = _Sums((e.start, size) for e, _, size in self._own() if e.thread == thread)
        rows: dict[str, Row] = {}
        for path, start, end, first, last, thread in sorted(self._calls, key=lambda c: (c[1], -c[2])):
            row = rows.setdefault(path, Row(path))
            row.calls += 1
            row.forward += (end - start) * 1e-9
            row.backward += steps.between(first + 1, last) * 1e-9
            row.bytes += taken[thread].between(start, end)
        return list(rows.values())

    def table(self, limit: int = 20) -> str:
        """Both tables as text, at most `limit` ops."""
        return "\n".join([*_lines("op", self.ops()[:limit]), "", *_lines("module", self.modules())])

    def __str__(self) -> str:
        return self.table()

    def chrome_trace(self, path: str | Path) -> None:
        """Writes the events in the Trace Event Format, for chrome://tracing or ui.perfetto.dev. Times are in us."""
        trace = [
            {
                "name": e.name,
                "cat": e.kind,
                "ph": "X",
                "ts": e.start / 1e3,
                "dur": (e.end - e.start) / 1e3,
                "pid": 0,
                "tid": e.thread,
                "args": {"bytes": e.bytes, "sequence": e.sequence},
            }
            for e in self.events
        ]
        Path(path).write_text(json.dumps({"traceEvents": trace, "displayTimeUnit": "ms"}))


class _Sums:
    """Sums of values over ranges of their keys."""

    def __init__(self, pairs: Iterable[tuple[int, int]]) -> None:
        ordered = sorted(pairs)
        self.keys = [key for key, _ in ordered]
        self.sums = [0, *itertools.accumulate(value for _, value in ordered)]

    def between(self, first: int, last: int) -> int:
        return self.sums[bisect.bisect_right(self.keys, last)] - self.sums[bisect.bisect_left(self.keys, first)]


def _inside(steps: list[Event]) -> Callable[[Event], Event | None]:
    """Finds the outermost step of backward that an event lies in."""
    threads: dict[int, list[Event]] = defaultdict(list)
    for e in steps:
        if not threads[e.thread] or threads[e.thread][-1].end <= e.start:
            threads[e.thread].append(e)
    starts = {t: [e.start for e in v] for t, v in threads.items()}

    def find(e: Event) -> Event | None:
        at = bisect.bisect_right(starts.get(e.thread, []), e.start) - 1
        if at < 0 or threads[e.thread][at].end < e.end:
            return None
        return threads[e.thread][at]

    return find


def _lines(title: str, rows: Iterable[Row]) -> list[str]:
    rows = list(rows)
    width = max([len(title), *(len(r.name) for r in rows)])
    lines = [f"{title:{width}}  {'calls':>7}  {'forward':>10}  {'backward':>10}  {'bytes':>12}"]
    lines += [
        f"{r.name:{width}}  {r.calls:7d}  {r.forward * 1e3:7.3f} ms  {r.backward * 1e3:7.3f} ms  {r.bytes:12,d}"
        for r in rows
    ]
    return lines
