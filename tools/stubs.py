"""Writes python/pullback/_core.pyi from the built extension; with --check fails when the file differs.

nanobind's generator sees the functions. What it does not see is added here: the element-wise ops, which are objects of
one C type, the methods that are installed from Python, the operators of Tensor, and names that shadow a builtin.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import tempfile
from pathlib import Path

import pullback as pb

TARGET = Path(__file__).resolve().parent.parent / "python" / "pullback" / "_core.pyi"
HEAD = '''"""The compiled core of pullback. Written by tools/stubs.py: do not edit."""

import builtins
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias, overload

'''
#: Anything that becomes a tensor: a tensor, a Python number, an array, nested sequences.
OPERAND = "Tensor | complex | object"
#: Result types of the operators; every other operator takes an operand and gives a tensor.
OPERATORS = {
    "__hash__": "int",
    "__bool__": "builtins.bool",
    "__int__": "int",
    "__float__": "float",
    "__index__": "int",
    "__len__": "int",
    "__setitem__": "None",
}
RESULTS = {"__iter__": "Iterator[Tensor]", "shape": "tuple[int, ...]", "strides": "tuple[int, ...]"}
#: The types of methods that are installed from Python.
INSTALLED = ("pullback.Op", "instancemethod")
REGISTER_HOOK = "def register_hook(self, f: Callable[[Tensor], Tensor | None]) -> Any: ..."


def generated() -> ast.Module:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "_core.pyi"
        command = [sys.executable, "-m", "nanobind.stubgen", "-q", "-P", "-m", "pullback._core", "-o", str(out)]
        subprocess.run(command, check=True)
        return ast.parse(out.read_text())


def function(text: str) -> ast.FunctionDef:
    (node,) = ast.parse(text).body
    assert isinstance(node, ast.FunctionDef)
    return node


def op_function(row: dict[str, object]) -> ast.FunctionDef:
    """The typed signature of a registry row: tensors, then constants and the generator by keyword."""
    node = function(f"def {row['signature']} -> Tensor: ...")
    if row["unit"] == "activations":
        node.args.kwonlyargs.append(ast.arg("saved"))
        node.args.kw_defaults.append(ast.Constant(None))
    for a in node.args.args:
        a.annotation = ast.parse(OPERAND, mode="eval").body
    for a in node.args.kwonlyargs:
        kind = {"rng": "Generator | None", "saved": "str | None"}.get(a.arg, "float")
        a.annotation = ast.parse(kind, mode="eval").body
    node.body = [ast.Expr(ast.Constant(str(row["doc"])))]
    return node


def method(node: ast.FunctionDef) -> ast.FunctionDef:
    """The same function with `self` for its first argument."""
    copy = function(ast.unparse(node))
    first = (copy.args.posonlyargs or copy.args.args)[0]
    first.arg, first.annotation = "self", None
    copy.body = [ast.Expr(ast.Constant(...))]
    return copy


def returns_any(node: ast.FunctionDef) -> None:
    """`object` as a result helps nobody: callers could not use it without a cast."""
    if isinstance(node.returns, ast.Name) and node.returns.id == "object":
        node.returns = ast.Name("Any")


def type_operator(node: ast.FunctionDef) -> None:
    if node.name in RESULTS:
        node.returns = ast.parse(RESULTS[node.name], mode="eval").body
    if node.returns is not None:
        return
    if node.name in ("__pow__", "__rpow__"):  # the third argument of pow() is not taken
        node.args.posonlyargs.pop()
        node.args.defaults.clear()
    node.returns = ast.parse(OPERATORS.get(node.name, "Tensor"), mode="eval").body
    for a in [*node.args.posonlyargs, *node.args.args][1:]:
        a.annotation = ast.Name("object")
    node.body = [ast.Expr(ast.Constant(...))]


class Annotations(ast.NodeTransformer):
    """pb.bool shadows the builtin, and in the class Tensor a property shadows the class dtype."""

    def visit_annotation(self, node: ast.expr | None) -> ast.expr | None:
        names = {"bool": "builtins.bool", "dtype": "DTypeOf", "instancemethod": "Any"}
        for part in ast.walk(node) if node is not None else ():
            if isinstance(part, ast.Name):
                part.id = names.get(part.id, part.id)
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                part.value = names.get(part.value, part.value)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
        for a in every:
            if a is not None:
                a.annotation = self.visit_annotation(a.annotation)
        node.returns = self.visit_annotation(node.returns)
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AnnAssign:
        node.value = None
        if not (isinstance(node.annotation, ast.Name) and node.annotation.id == "dtype"):
            node.annotation = self.visit_annotation(node.annotation) or node.annotation
        return node


def is_op(node: ast.stmt) -> bool:
    return isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == "pullback.Op"


def once(body: list[ast.stmt]) -> None:
    """Keeps the first of overloads with the same arguments, which is the one that is called."""
    first: dict[str, list[ast.FunctionDef]] = {}
    for node in [n for n in body if isinstance(n, ast.FunctionDef) and n.decorator_list]:
        same = first.setdefault(node.name, [])
        if any(ast.unparse(node.args) == ast.unparse(other.args) for other in same):
            body.remove(node)
        else:
            same.append(node)
    for nodes in first.values():
        if len(nodes) == 1:
            nodes[0].decorator_list = []


def rewrite(module: ast.Module) -> list[ast.stmt]:
    rows = {row["name"]: op_function(row) for row in pb.ops() if row["family"] == "Map"}
    once(module.body)
    functions = {node.name: node for node in module.body if isinstance(node, ast.FunctionDef)} | rows
    out: list[ast.stmt] = []
    for node in module.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)) or (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        ):
            continue  # HEAD has them
        if isinstance(node, ast.AnnAssign) and is_op(node):
            node = rows[ast.unparse(node.target)]
        if isinstance(node, ast.ClassDef):
            body: list[ast.stmt] = []
            for item in node.body:
                if isinstance(item, ast.AnnAssign) and ast.unparse(item.annotation) in INSTALLED:
                    item = method(functions[ast.unparse(item.target)])
                if isinstance(item, ast.FunctionDef):
                    if node.name == "Tensor":
                        type_operator(item)
                    returns_any(item)
                if not (isinstance(item, ast.FunctionDef) and item.name == "__delitem__"):
                    body.append(item)
            node.body = body
            if node.name == "Tensor":
                node.body.append(function(REGISTER_HOOK))
        elif isinstance(node, ast.FunctionDef):
            returns_any(node)
        out.append(node)
    return out


def public() -> str:
    """What `from ._core import *` brings into the package: without names that it hides or defines anew."""
    names = [n for n in dir(pb._core) if not n.startswith("_") and getattr(pb, n, None) is getattr(pb._core, n)]
    return f"__all__ = {names!r}\n__version__: str\n\n"


def render() -> str:
    body = [Annotations().visit(node) for node in rewrite(generated())]
    errors = [f"class {e}({base}): ..." for e, base in sorted(ERRORS.items())]
    blocks = []
    for node in body:
        text = ast.unparse(ast.fix_missing_locations(node))
        if isinstance(node, ast.ClassDef) and node.name == "dtype":
            text += "\n\nDTypeOf: TypeAlias = dtype"
        blocks.append(text)
    text = "\n\n".join(errors + blocks).replace(" | None | None", " | None")
    lines = text.replace("int | tuple[int, ...]", "int | Sequence[int]").split("\n")
    comparisons = tuple(f"    def __{name}__(self, value: object, /) -> Tensor:" for name in ("eq", "ne"))
    lines = [line + "  # type: ignore[override]" if line.startswith(comparisons) else line for line in lines]
    return HEAD + public() + "\n".join(lines) + "\n"


#: The error classes are made in C from these bases.
ERRORS = {
    name: getattr(pb, name).__mro__[1].__name__
    for name in ("CheckpointError", "DTypeError", "DeviceError", "GraphError", "ShapeError")
}


def main() -> int:
    text = render()
    if "--check" in sys.argv:
        same = TARGET.exists() and TARGET.read_text() == text
        print("_core.pyi is up to date" if same else "_core.pyi differs from the extension: run python tools/stubs.py")
        return 0 if same else 1
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
