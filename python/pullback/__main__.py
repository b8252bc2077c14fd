"""The command line: python -m pullback info | demo | bench | ops."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pullback as pb


def _checkout() -> Path | None:
    """The source checkout that this package is part of, or else the one that the working directory lies in."""
    here = Path.cwd()
    for folder in (Path(__file__).resolve().parents[2], here, *here.parents):
        project = folder / "pyproject.toml"
        if (folder / "bench" / "run.py").is_file() and project.is_file() and 'name = "pullback"' in project.read_text():
            return folder
    return None


def _bench(arguments: Sequence[str]) -> int:
    """Runs the benchmarks of a source checkout on this package."""
    folder = _checkout()
    if folder is None:
        print("bench: the benchmarks are part of a source checkout\nhelp: run this from a clone", file=sys.stderr)
        return 2
    script = str(folder / "bench" / "run.py")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    return subprocess.run([sys.executable, script, *arguments], env=environment, check=False).returncode


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses the command line and runs one command; returns the exit status."""
    from .cli import demo

    parser = argparse.ArgumentParser(prog="python -m pullback", description="A compiled tensor engine.")
    parser.add_argument("--version", action="version", version=pb.__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="info | demo | bench | ops")
    commands.add_parser("info", help="what this build is and what it finds here")
    demo.add_arguments(commands.add_parser("demo", help="train on real data and report"))
    commands.add_parser("bench", help="run the benchmarks of a source checkout", add_help=False)
    commands.add_parser("ops", help="list the registered ops")
    options, rest = parser.parse_known_args(arguments)
    if options.command == "bench":
        return _bench(rest)
    if rest:
        parser.error(f"unknown arguments: {' '.join(rest)}")
    if options.command == "demo":
        try:
            return demo.run(options)
        except (OSError, ValueError, ImportError, RuntimeError, FloatingPointError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("interrupted; --resume goes on", file=sys.stderr)
            return 130
    from .cli import info

    return info.info() if options.command == "info" else info.ops()


if __name__ == "__main__":
    sys.exit(main())
