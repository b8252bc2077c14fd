"""The command line: info, ops, bench, demo."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pullback as pb
from pullback.__main__ import main
from pullback.cli import demo, models

TEXT = "the quick brown fox jumps over the lazy dog.\n" * 60


def run(*arguments, timeout=120, **environment):
    command = [sys.executable, "-m", "pullback", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, env=os.environ | environment, check=False
    )


def hashes(text):
    return [line.split("sha256 ")[1] for line in text.splitlines() if "sha256" in line]


def test_info(capsys):
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    for word in ("pullback", "kernels", "threads", "cuda", "memory", "headers"):
        assert word in out
    assert pb.isa_level() in out


def test_ops(capsys):
    assert main(["ops"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(pb.ops()) and lines[0].startswith("name")
    assert any(line.startswith("silu ") for line in lines)


def test_unknown_commands(capsys):
    for arguments in ([], ["nonsense"], ["info", "--more"]):
        with pytest.raises(SystemExit) as info:
            main(arguments)
        assert info.value.code == 2
    assert "unknown arguments: --more" in capsys.readouterr().err


def test_bench_outside_a_checkout(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("pullback.__main__.__file__", str(tmp_path / "a" / "b" / "c.py"))
    monkeypatch.chdir(tmp_path)
    assert main(["bench"]) == 2
    assert "part of a source checkout" in capsys.readouterr().err


def test_digits_reach_the_goal(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path), "--steps", "400", "--threads", "1"]) == 0
    captured = capsys.readouterr()
    out = captured.out
    assert out.count("test accuracy 9") == 2 and out.count("steps per second") == 2
    assert out.count("bytes kept for backward") == 2 and "400/400" in captured.err
    for name in ("MLP", "conv-net"):
        assert (tmp_path / name / "loss.png").stat().st_size > 1000
        assert (tmp_path / name / "step-00000400.safetensors").exists()


def test_too_few_steps_miss_the_goal(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path), "--steps", "2", "--no-progress", "--threads", "1"]) == 1
    assert "below 97%: conv net, MLP" in capsys.readouterr().err


def test_the_same_bytes_for_threads_and_kernels(tmp_path, capsys):
    """This process runs the best kernels of the machine, another one the kernels of a lower level."""
    seen = set()
    for threads in (1, 2):
        arguments = ["demo", "--steps", "5", "--no-progress", "--threads", str(threads)]
        assert main([*arguments, "--out", str(tmp_path / f"here{threads}")]) == 1
        seen.add(tuple(hashes(capsys.readouterr().out)))
        other = "v3" if pb.isa_level() != "v3" else "v2"
        done = run(*arguments, "--out", tmp_path / f"there{threads}", PULLBACK_ISA=other)
        assert done.returncode == 1, done.stderr
        seen.add(tuple(hashes(done.stdout)))
    assert len(seen) == 1 and len(seen.pop()) == 2


def test_text_trains_samples_and_resumes(tmp_path, capsys):
    (tmp_path / "t.txt").write_text(TEXT)
    base = ["demo", "--data", "text", "--path", str(tmp_path / "t.txt"), "--no-progress", "--threads", "1"]
    assert main([*base, "--out", str(tmp_path / "a"), "--steps", "15"]) == 0
    out = capsys.readouterr().out
    sample = out.split("-" * 72 + "\n")[1].removesuffix("\n")
    assert len(sample) == 300 and set(sample) <= set(TEXT)
    assert float(out.split("validation loss ")[1].split(",")[0]) < 3.3
    assert main([*base, "--out", str(tmp_path / "a"), "--steps", "15", "--resume"]) == 0
    again = capsys.readouterr().out
    assert hashes(again) == hashes(out) and "steps per second" not in again
    assert sample in again  # the sample depends on seed and weights only


def test_mnist_from_files(tmp_path, capsys):
    from test_data import write_mnist

    write_mnist(tmp_path, "t10k", 40, side=28)
    arguments = ["demo", "--data", "mnist", "--root", str(tmp_path), "--out", str(tmp_path / "o"), "--steps", "2"]
    assert main([*arguments, "--no-progress", "--threads", "1"]) == 1
    assert "36 images" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, text",
    [
        (["--data", "text"], "needs a file"),
        (["--data", "mnist"], "needs the folder of its files"),
        (["--data", "mnist", "--root", "/none"], "no file"),
        (["--data", "text", "--path", "/none"], "No such file"),
        (["--steps", "0"], "--steps must be at least 1"),
        (["--device", "cuda"], "device 'cuda' is not available"),
        (["--saved", "9"], "must be 1 to 8"),
    ],
)
def test_bad_options(arguments, text, tmp_path, capsys):
    if "cuda" in arguments and (Path(pb.__file__).parent / "cuda.py").exists() and pb.cuda.is_available():
        arguments, text = ["--steps", "0"], "--steps must be at least 1"
    assert main(["demo", "--out", str(tmp_path), "--no-progress", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and text in err
    assert os.listdir(tmp_path) == []


def test_schedule():
    rate = demo._cosine(2000, 1e-3, 1e-4, warmup=100)
    assert rate(0) == pytest.approx(1e-3 / 101) and rate(100) == pytest.approx(1e-3)
    assert (
        rate(1050) == pytest.approx(5.5e-4) and rate(2000) == pytest.approx(1e-4) and rate(9999) == pytest.approx(1e-4)
    )


def test_the_gpt_is_causal_and_of_the_right_size():
    pb.manual_seed(0)
    model = models.CharGPT(65)
    assert sum(p.size for p in model.parameters()) == 804_096
    codes = pb.random.randint(0, 65, (1, 10))
    other = pb.concat([codes[:, :6], (codes[:, 6:] + 1) % 65], axis=1)
    with pb.no_grad():
        a, b = model(codes), model(other)
    assert tuple(a.shape) == (1, 10, 65)
    assert pb.max(pb.abs(a[:, :6] - b[:, :6])).item() <= 1e-6 < pb.max(pb.abs(a[:, 6:] - b[:, 6:])).item()


def test_saved_keeps_less(tmp_path, capsys):
    """--saved 3: the report counts the codes that training keeps."""
    kept = []
    for saved in ([], ["--saved", "3"]):
        out = tmp_path / str(len(kept))
        main(["demo", "--out", str(out), "--no-progress", "--steps", "3", "--threads", "1", *saved])
        found = re.findall(r"([\d,]+) bytes kept for backward", capsys.readouterr().out)
        kept.append([int(n.replace(",", "")) for n in found])
    assert len(kept[0]) == len(kept[1]) == 2
    assert all(b < a for a, b in zip(*kept, strict=True))
