"""The benchmarks' machinery: schema, statistics, tables, one case from end to end. Nothing here depends on speed."""

import argparse
import copy
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pullback as pb

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench import ceilings, footprint, instructions, performance, schema, stats, table  # noqa: E402
from bench.cases import all_cases, training  # noqa: E402
from bench.libs import SIDES, Pullback  # noqa: E402
from bench.run import RESULTS, Run, difference  # noqa: E402
from bench.worker import save  # noqa: E402

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(pb.__file__).parent.parent)}


def run(*arguments):
    command = [sys.executable, "-m", "pullback", "bench", *arguments]
    return subprocess.run(command, env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    out = tmp_path_factory.mktemp("bench") / "result.json"
    options = ["--only", "add 16", "--smoke", "--peers", "none", "--threads", "1", "--no-ceilings", "--out", str(out)]
    done = run(*options)
    assert done.returncode == 0, done.stderr
    assert "add 16 with grad" in done.stdout
    return json.loads(out.read_text())


def case(ours, theirs, **more):
    """A row with one block per number and side, for statistics."""
    blocks = {"pullback": ours, "torch": theirs, **more}
    sides = {
        side: [{"round": i, "block": 0, "samples": [v], "load": 0.0} for i, v in enumerate(values)]
        for side, values in blocks.items()
    }
    row = {"name": "add 16", "group": "overhead", "unit": "s", "flop": 0.0, "bytes": 0.0, "checks": [], "refused": []}
    return {**row, "sides": sides}


def test_a_case_runs_and_fits_the_schema(result):
    assert schema.problems(result) == []
    assert [c["name"] for c in result["cases"]] == ["add 16", "add 16 with grad"]
    blocks = result["cases"][0]["sides"]["pullback"]
    assert [b["block"] for b in blocks] == [0, 1]
    assert all(0 < s < 1 for b in blocks for s in b["samples"])
    assert result["threads"] == 1 and result["complete"] is False


def test_the_file_format_loses_nothing(result):
    text = table.dump(result)
    assert json.loads(text) == result
    assert max(map(len, text.splitlines())) < 2000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.pop("commit"), "commit is missing"),
        (lambda r: r.update(extra=1), "extra is unknown"),
        (lambda r: r.update(threads=0), "threads: 0 is out of range"),
        (lambda r: r.update(threads=True), "bool where integer is due"),
        (lambda r: r.update(cases=[]), "cases: too short"),
        (lambda r: r["cases"][0].update(unit="hours"), "'hours' is none of"),
        (lambda r: r["cases"][0]["sides"]["pullback"][0].update(samples=[math.nan]), "nan is out of range"),
    ],
)
def test_schema_finds(result, change, message):
    broken = copy.deepcopy(result)
    change(broken)
    found = schema.problems(broken)
    assert len(found) == 1 and message in found[0]


def test_results_fit_the_schema():
    for path in RESULTS.glob("*.json"):
        found = json.loads(path.read_text())
        assert schema.problems(found) == [], path
        assert found["complete"] is True, path


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="a source archive carries no results")
def test_readme_shows_the_newest_result():
    assert table.README.read_text() == table.expected()
    assert performance.PAGE.read_text() == performance.expected()


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="a source archive carries no results")
def test_rows_that_fall_short_are_explained():
    result = json.loads(table.newest().read_text())
    assert set(performance.missed(result)) <= set(performance.notes())
    assert set(performance.notes()) <= {c.name for c in all_cases()} | set(footprint.NAMES)


def test_readme_table_is_replaced_between_the_marks():
    text = f"a\n{table.BEGIN}\nold\n{table.END}\nb\n"
    assert table.replaced(text, "new") == f"a\n{table.BEGIN}\nnew\n{table.END}\nb\n"
    assert table.replaced(text, "") == f"a\n{table.BEGIN}\n{table.END}\nb\n"
    with pytest.raises(SystemExit, match="lacks"):
        table.replaced("nothing", "new")


def test_ratio_is_the_median_of_neighbours():
    row = case([1.0, 2.0, 9.0], [2.0, 4.0, 3.0])
    assert stats.pairs(row, "pullback", "torch") == [0.5, 0.5, 3.0]
    assert stats.ratio(row, "pullback", "torch") == 0.5
    assert stats.ratio(row, "pullback", "absent") is None


def test_headline_is_the_less_favourable_peer():
    row = case([1.0], [4.0], **{"torch-heap": [2.0], "pullback-v3": [8.0]})
    assert stats.worst(row) == (0.5, "torch-heap")
    assert stats.worst(row, "pullback-v3") == (4.0, "torch-heap")
    assert stats.worst(case([1.0], [])) is None


def test_goals_are_compared(result):
    found = {**result, "cases": [case([1.0], [4.0])]}
    first, second = stats.verdicts(found)["add 16"]
    assert str(first) == "<= 0.3 met" and first.measured == 0.25 and second.met is True
    found["cases"] = [case([2.0], [4.0])]
    assert [v.met for v in stats.verdicts(found)["add 16"]] == [False, False]
    found["cases"] = [case([1.0], [])]
    assert str(stats.verdicts(found)["add 16"][0]) == "<= 0.3 not measured"
    text = table.readme({**found, "cases": [case([2e-7], [4e-7])]})
    assert "| add 16 | 200 ns | 400 ns |  | 0.50 | <= 0.3 not met" in text


def test_share_of_the_peak(result):
    row = {**case([1e-3], [2e-3]), "group": "matmul", "name": "matmul 256", "flop": 1e8}
    peak = {"name": stats.PEAK, "unit": "GFLOP/s", "threads": 1, "samples": [150.0, 200.0]}
    found = {**result, "ceilings": [peak], "cases": [row]}
    assert stats.share(found, row, "pullback", stats.PEAK) == pytest.approx(0.5)
    assert stats.share({**found, "ceilings": []}, row, "pullback", stats.PEAK) is None
    assert "| matmul 256 | 100 | 0.50 |  | 50 | 0.50 |" in table.readme(found)


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.234e-7, "123 ns"), (9.876e-6, "9.88 us"), (0.0123, "12.3 ms"), (0.9996, "1.00 s"), (None, "")],
)
def test_durations(value, text):
    assert table.amount(value, "s") == text


def test_goals_name_cases_and_sides():
    names = {c.name for c in all_cases()} | {*footprint.NAMES, "full build", "rebuild after one op"}
    for goal in stats.goals():
        assert goal["case"] in names
        assert goal.get("side", "pullback") in SIDES and goal.get("to", "torch") in SIDES
        assert ("at_most" in goal) != ("at_least" in goal)


def test_case_names_are_unique():
    names = [c.name for c in all_cases()]
    assert len(names) == len(set(names))


def test_outputs_that_differ_are_seen(tmp_path):
    import numpy as np

    x = np.linspace(-1, 1, 300_000, dtype=np.float32)
    files = {}
    for name, array in {"a": x, "b": x * (1 + 1e-3), "c": x[:-1], "d": np.where(x > 0.5, np.nan, x)}.items():
        files[name] = tmp_path / f"{name}.npz"
        save(str(files[name]), {"y": array})
    assert difference(files["a"], files["a"]) == 0
    assert difference(files["a"], files["b"]) == pytest.approx(1e-3, rel=0.01)
    assert difference(files["a"], files["c"]) == math.inf
    assert difference(files["a"], files["d"]) == math.inf
    assert difference(files["d"], files["a"]) == math.inf


class FakeWorker:
    """Answers as a worker does, with given outputs."""

    def __init__(self, side, output):
        self.side, self.output, self.asked = side, output, []

    def send(self, *, file, **command):
        save(file, {"y": self.output})

    def receive(self):
        return {"outputs": ["y"], "version": "1"}

    def ask(self, **command):
        self.asked.append(command["do"])
        return {}


def test_a_side_that_disagrees_is_not_timed(tmp_path):
    import numpy as np

    add = next(c for c in all_cases() if c.name == "add 16")
    y = np.ones(16, np.float32)
    bench = Run(argparse.Namespace(seconds=0.1), Path(pb.__file__).parent, ["torch", "torch-heap"])
    row = bench.row(add)
    workers = [FakeWorker("pullback", y), FakeWorker("torch", y * 1.01), FakeWorker("torch-heap", y)]
    ready = bench.load(add, 0, row, workers, tmp_path)
    assert [w.side for w in ready] == ["pullback", "torch-heap"]
    assert [w.asked for w in workers] == [["warm"], [], ["warm"]]
    assert row["refused"] == ["torch: differs from pullback by 0.0099, not timed"]
    assert [c["side"] for c in row["checks"]] == ["torch-heap"]
    workers = [FakeWorker("pullback", y), FakeWorker("torch", y * 1.01), FakeWorker("torch-heap", y * np.nan)]
    assert bench.load(add, 1, row, workers, tmp_path) == []
    assert row["refused"][-1] == "torch-heap: differs from pullback by inf, not timed"


@pytest.mark.parametrize("make", [training.mlp, training.cnn, training.gpt], ids=["mlp", "cnn", "gpt"])
def test_training_steps_lower_the_loss(make):
    out = training.prepare(make)(Pullback(1)).outputs()
    assert out["losses"][2] < out["losses"][0]
    assert all(abs(g).max() > 0 for name, g in out.items() if name.endswith(".grad"))


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_ceilings_are_measured():
    rows = ceilings.measure(1, scale=0.01)
    if ceilings.cpu_flags() >= {"avx2", "fma"}:
        assert {"GFLOP/s", "GB/s"} == {r["unit"] for r in rows}
    assert all(s > 0 for r in rows for s in r["samples"])


def test_unknown_names_are_refused():
    assert "nothing is named nonsense" in run("--only", "nonsense").stderr
    assert "unknown peer 'nobody'" in run("--peers", "nobody").stderr
    assert "must be positive" in run("--rounds", "0").stderr


def test_outside_a_checkout(tmp_path):
    package = tmp_path / "pullback"
    shutil.copytree(Path(pb.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    environment = {**ENVIRONMENT, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "pullback", "bench"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "source checkout" in done.stderr and "help:" in done.stderr


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")
def test_instructions_are_counted():
    count = instructions.measure("z = x + y")
    assert 100 < count < 1.5 * instructions.recorded().get("z = x + y", 20_000)
