"""The engine's error messages: every `fail<...>("op", "rule ...", "help ...")` in csrc and every raise in the package.

`--log FILE` prints those that no test brought about. tests/test_errors.py holds a table of bad calls.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Message:
    """A message by its constant parts; between them stand values."""

    place: str
    kind: str
    parts: tuple[str, ...]
    has_help: bool

    def matches(self, text: str) -> bool:
        """Whether a raised message can be this one."""
        return bool(re.search(".*".join(re.escape(p) for p in self.parts), text, re.S))


def _arguments(text: str, start: int) -> list[str]:
    """The arguments of the call whose opening bracket is at `start`."""
    out, depth, at, begin = [], 0, start, start + 1
    while at < len(text):
        c = text[at]
        if c in "\"'" and not (c == "'" and text[at - 1].isdigit()):
            at += 1
            while text[at] != c:
                at += 2 if text[at] == "\\" else 1
        elif c in "([{":
            depth += 1
        elif c in ")]}":
            depth -= 1
            if depth == 0:
                out.append(text[begin:at])
                return out
        elif c == "," and depth == 1:
            out.append(text[begin:at])
            begin = at + 1
        at += 1
    return out


_LITERAL = re.compile(r'"((?:[^"\\]|\\.)*)"')


def _constant_parts(expression: str) -> tuple[str, ...]:
    joined = re.sub(r'"\s*\n?\s*"', "", expression)
    parts = [bytes(m, "utf-8").decode("unicode_escape") for m in _LITERAL.findall(joined)]
    return tuple(p for p in parts if len(p.strip()) > 1)


#: Functions that raise for their callers: name -> the place of the rule among their arguments.
HELPERS = {"_bad": 1, "need": 2, "bad": 1}


def native(folder: Path = ROOT / "csrc") -> list[Message]:
    """Messages of the C++ sources. A choice `a ? "x" : "y"` gives one message per branch."""
    out = []
    for path in sorted([*folder.rglob("*.cpp"), *folder.rglob("*.h")]):
        text = path.read_text()
        for m in re.finditer(r"\bfail<(\w+)>\(|\b(bad)\(", text):
            args = _arguments(text, m.end() - 1)
            if (
                len(args) < 3
                or text[: m.start()].rsplit("\n", 1)[-1].lstrip().startswith("//")
                or "std::string_view" in args[0]
            ):
                continue  # a comment or the definition
            place = f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, m.start()) + 1}"
            choice = re.fullmatch(r"\s*[^\"]*\?\s*(\".*\")\s*:\s*(\".*\")\s*", args[1], re.S)
            for rule in choice.groups() if choice else (args[1],):
                out.append(
                    Message(place, m.group(1) or "ValueError", _constant_parts(rule), bool(args[2].strip().strip('"')))
                )
    return [m for m in out if m.parts != (" in '",)]  # that of `bad` itself


def _python_parts(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.JoinedStr):
        return [v.value for v in node.values if isinstance(v, ast.Constant)]
    if isinstance(node, ast.BinOp):
        return _python_parts(node.left) + _python_parts(node.right)
    return []


def python(folder: Path = ROOT / "python" / "pullback") -> list[Message]:
    """Messages of the Python sources, without those that only pass on another error."""
    out = []
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and len(node.args) > HELPERS.get(node.func.id, 99)
            ):
                rule = [p for p in _python_parts(node.args[HELPERS[node.func.id]]) if len(p.strip()) > 1]
                out.append(Message(f"{path.relative_to(ROOT)}:{node.lineno}", "ValueError", tuple(rule), True))
                continue
            if not (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args):
                continue
            parts = _python_parts(node.exc.args[0])
            if not parts or parts[0] in ("load: ", "mnist: ", "") or parts == [": ", "\nhelp: "]:
                continue  # a helper: its callers are listed
            name = node.exc.func.attr if isinstance(node.exc.func, ast.Attribute) else getattr(node.exc.func, "id", "?")
            has_help = any("help: " in p for p in parts)
            rule = [
                p.split("\n")[0] for p in parts[: 1 + next((i for i, p in enumerate(parts) if "\n" in p), len(parts))]
            ]
            rule = [p for p in rule if len(p.strip()) > 1]
            out.append(Message(f"{path.relative_to(ROOT)}:{node.lineno}", name, tuple(rule), has_help))
    return out


#: Messages that no call from Python brings about, and why; and those that tests read in another process.
EXEMPT = {
    "the CUDA library was built without it": "needs another library",
    "another capture is running": "a captured step inside another is part of it",
    "CUDA was in use before this process was forked": "tests/device/memory.py sees it in the child",
    "the CUDA driver is out of memory": "the allocator reports it with sizes and holders; needs a driver that fails",
    "CUDA error ": "needs a driver that fails",
    "this CPU runs none of the instruction set levels": "needs another CPU",
    "no unit is called ": "an error of the build",
    "no element-wise op is called ": "C++ that names an op which does not exist",
    "no reduction is called ": "C++ that names an op which does not exist",
    "an op of this name is registered already": "C++ of an extension",
    "the extension was built with the headers": "C++ of an extension",
    "has no known derivative and an input requires grad": "no built-in op is such; C++ of an extension",
    "has no derivative of its own": "the public function has one",
    "the inverse normal distribution function": "only draws use it, and they take no gradient",
    "the value does not fit the place it is written to": "every caller checks before",
    "an origin is a contiguous copy": "the optimizers that pass one make it so",
    "format ": "caught and reported as 'holds no state of a trainer'",
    "unknown level '": "tests/test_import.py, in another process",
    "this CPU does not run level ": "tests/test_import.py, in another process",
    "this build has no kernels for level ": "tests/test_import.py, in another process",
    "no such state format": "optim/optimizer.py checks the name before",
    "no such rounding": "optim/optimizer.py checks the name before",
    "demo: --optimizer goes with": "tests/test_demo_optimizers.py, as printed by the command",
    "demo: no optimizer is called": "tests/test_demo_optimizers.py, as printed by the command",
    "demo: --steps must be at least 1": "tests/test_demo.py, as printed by the command",
    "demo: --data text needs a file": "tests/test_demo.py, as printed by the command",
    "demo: --data mnist needs the folder": "tests/test_demo.py, as printed by the command",
}


def unseen(log: Path) -> list[Message]:
    """Messages that no test brought about, by a log of the errors that tests expected (tests/conftest.py)."""
    texts = {json.loads(line) for line in log.read_text().splitlines()}
    return [
        m
        for m in native() + python()
        if not any(m.matches(t) for t in texts) and not any(e in " ".join(m.parts) for e in EXEMPT)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", type=Path, required=True, help="written by pytest under PULLBACK_ERROR_LOG")
    missing = unseen(parser.parse_args().log)
    for m in missing:
        print(f"{m.place}: {m.kind}: {' ... '.join(m.parts)}")
    print(f"{len(missing)} of {len(native()) + len(python())} messages came in no test")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
