"""Documentation: every public name has a docstring, every example in one runs, docs/ops.md is that of the registry."""

import doctest
import importlib
import importlib.util
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pullback as pb
from pullback import _core

ROOT = Path(__file__).resolve().parent.parent
COMPILED = ("__main__", "._core", "._cuda", ".libpullback_engine")  # what is run, or a library beside the modules
MODULES = sorted(m.name for m in pkgutil.walk_packages(pb.__path__, "pullback.") if not m.name.endswith(COMPILED))
if importlib.util.find_spec("torch") is None:  # what needs it is read where it is installed
    MODULES = [name for name in MODULES if not name.startswith("pullback.torch")]
GLOBALS = {"pb": pb, "np": np}


def run_examples(test):
    out = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    runner.run(test, out=out.append)
    assert runner.failures == 0, "".join(out)


@pytest.mark.parametrize("name", ["pullback", *MODULES])
def test_examples_of_module(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = pb.random.default_generator().get_state()
    for test in doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(name), extraglobs=GLOBALS):
        run_examples(test)
    pb.random.default_generator().set_state(state)


def core_docs():
    """(name, docstring) of the compiled functions, classes and methods."""
    for name, f in vars(_core).items():
        if isinstance(f, type):
            yield from (
                (f"{name}.{key}", inspect.getattr_static(f, key).__doc__) for key in vars(f) if key != "__doc__"
            )
        yield name, f.__doc__


def test_examples_of_the_core():
    parser, count = doctest.DocTestParser(), 0
    state = pb.random.default_generator().get_state()
    for name, doc in core_docs():
        if doc and ">>>" in doc:
            run_examples(parser.get_doctest(doc, dict(GLOBALS), name, None, 0))
            count += 1
    pb.random.default_generator().set_state(state)
    assert count >= 40


def has_text(f):
    """A compiled function's docstring begins with its signature, which says nothing."""
    doc = inspect.getdoc(f) if not type(f).__name__.startswith("nb_") else f.__doc__
    lines = [line for line in (doc or "").splitlines() if line.strip()]
    name = getattr(f, "__name__", "")
    return any(not line.lstrip().startswith((f"{name}(", "self.")) for line in lines)


def public_names():
    """(name, object) of the functions and classes that users see, with the members of classes."""
    seen = set()
    for module_name in ["pullback", *MODULES]:
        module = importlib.import_module(module_name)
        if any(part.startswith("_") for part in module_name.split(".")):
            continue
        names = getattr(module, "__all__", None) or [n for n in vars(module) if not n.startswith("_")]
        for name in names:
            f = getattr(module, name)
            home = getattr(f, "__module__", None) or "pullback"
            if not callable(f) or isinstance(f, pb.dtype) or not str(home).startswith("pullback") or id(f) in seen:
                continue
            seen.add(id(f))
            yield f"{module_name}.{name}", f
            if isinstance(f, type):
                for key, member in vars(f).items():
                    if not key.startswith("_") and (callable(member) or isinstance(member, property | classmethod)):
                        yield f"{module_name}.{name}.{key}", (member, f, key)


def test_every_public_name_has_a_docstring():
    bare, count = [], 0
    for name, f in public_names():
        count += 1
        if isinstance(f, tuple):
            member, owner, key = f
            inherited = any(has_text(vars(base).get(key)) for base in owner.__mro__ if key in vars(base))
            if not inherited and not has_text(member):
                bare.append(name)
        elif not has_text(f):
            bare.append(name)
    assert count > 300
    assert not bare, "\n".join(bare)


def test_attributes_of_tensors_have_docstrings():
    bare = [n for n in dir(pb.Tensor) if not n.startswith("_") and not has_text(inspect.getattr_static(pb.Tensor, n))]
    assert not bare, "\n".join(bare)


def test_ops_page_is_that_of_the_registry():
    tool = ROOT / "tools" / "docs.py"
    if not tool.exists():
        pytest.fail("tools/docs.py is gone")
    run = subprocess.run([sys.executable, tool, "--check"], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
