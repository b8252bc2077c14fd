"""bench/optim.py: its goals name its rows, and a row runs from end to end. Nothing here depends on speed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench import optim, schema, stats  # noqa: E402


def test_every_goal_names_a_row_and_every_rule_has_one():
    named = {g["case"] for g in optim.goals()}
    assert named == set(optim.RULES) - {"Muon"}  # whose products have no ideal bytes
    for goal in optim.goals():
        assert goal["to"] in optim.SIDES and goal.get("side", "pullback") in optim.SIDES
    adamw = {g["case"]: g["at_most"] for g in optim.goals() if g["to"] == "pullback-adamw"}
    for name, most in adamw.items():
        if not name.startswith("AdamW"):
            factor = 2.0 if name == "SGLD" else 1.15
            assert most == round(factor * optim.RULES[name].bytes / 28, 3), name


@pytest.mark.parametrize("name", [n for n, r in optim.RULES.items() if r.theirs and r.tolerance is not None])
def test_both_sides_make_the_same_steps(name):
    assert optim.difference(optim.RULES[name]) <= optim.RULES[name].tolerance


def test_a_row_runs_and_fits_the_schema(tmp_path):
    out = tmp_path / "result.json"
    command = [sys.executable, str(ROOT / "bench" / "optim.py"), "--smoke", "--only", "Lion", "--out", str(out)]
    done = subprocess.run([*command, "--threads", "1"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert schema.problems(result) == []
    assert [c["name"] for c in result["cases"]] == ["Lion"] and result["complete"] is False
    assert set(result["cases"][0]["sides"]) == {"pullback", "torch", "pullback-adamw"}
    assert stats.ratio(result["cases"][0], "pullback", "torch") > 0
    assert "/pullback-adamw <= 0.821" in done.stdout
