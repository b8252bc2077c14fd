"""A run that is killed again and again ends in the bytes of the run that was not."""

import csv
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import pullback as pb

# Everything that has state: dropout, batch norm, shuffling with workers, accumulation with a short last window, EMA,
# schedule, clipping, early stopping, logs. SLOW makes the moments of a step and of a save long enough to be hit.
SCRIPT = """
import os, sys, time
import pullback as pb
from pullback import nn
from pullback.data import DataLoader, TensorDataset
from pullback.train import Callback, CSVLogger, EarlyStopping, JSONLogger, LRMonitor, ModelCheckpoint, Trainer

out, threads, slow = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
pb.set_num_threads(threads)
sys.stdout.write("start\\n"); sys.stdout.flush()

if slow:  # a kill inside a save meets a half-written file
    real = os.fsync
    def fsync(fd):
        time.sleep(slow)
        real(fd)
    os.fsync = fsync

class Slow(Callback):
    def on_step_end(self, trainer, record):
        time.sleep(slow / 2)

pb.manual_seed(11)
model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 4))
rng = pb.random.Generator(12)
x = pb.random.normal((70, 6), rng=rng)
data = TensorDataset(x, pb.argmax(x[:, :4], axis=1))
held_out = TensorDataset(*(t[:20] for t in data.tensors))
optimizer = pb.optim.AdamW(model.parameters(), lr=0.01)
trainer = Trainer(
    model, optimizer, pb.losses.cross_entropy,
    metrics=["accuracy"],
    schedule=pb.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=30),
    callbacks=[
        LRMonitor(), EarlyStopping(patience=50), ModelCheckpoint(out + "/best.safetensors"),
        CSVLogger(out + "/steps.csv"), CSVLogger(out + "/epochs.csv", on="epoch"), JSONLogger(out + "/log.jsonl"),
        Slow(),
    ],
    clip_norm=1.0, accumulate=3, ema=0.95, seed=5, progress=False,
    checkpoint_dir=out + "/checkpoints", checkpoint_every=2,
)
train = DataLoader(data, 6, shuffle=True, seed=3, workers=2)  # 12 batches: 4 steps an epoch
valid = DataLoader(held_out, 7, shuffle=True, seed=4)
history = trainer.fit(train, valid, epochs=6)
trainer.save(out + "/final.safetensors")
print("done", len(history.steps))
"""


def start(folder, threads=1, slow=0.0):
    folder.mkdir(exist_ok=True)
    script = folder.parent / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(folder), str(threads), str(slow)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0 and out.endswith("done 24\n"), err
    return err


def files(folder):
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    finish(start(folder))
    return folder


def test_the_whole_run(whole):
    names = set(files(whole))
    assert names == {
        "best.safetensors",
        "checkpoints/step-00000020.safetensors",
        "checkpoints/step-00000022.safetensors",
        "checkpoints/step-00000024.safetensors",
        "epochs.csv",
        "final.safetensors",
        "log.jsonl",
        "steps.csv",
    }
    with (whole / "steps.csv").open() as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == list(range(1, 25))
    with (whole / "epochs.csv").open() as file:
        assert [int(row["epoch"]) for row in csv.DictReader(file)] == list(range(1, 7))
    records = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records if r["kind"] == "step"] == list(range(1, 25))


def test_another_thread_count_gives_the_same_bytes(whole, tmp_path):
    finish(start(tmp_path / "run", threads=2))
    assert files(tmp_path / "run") == files(whole)


def half_written(folder):
    return [p for p in folder.rglob(".*") if p.suffix == ".tmp"]


def wait_for_save(process, folder, known):
    """Return once a save that was not there before has begun, or the process has ended."""
    end = time.monotonic() + 60
    while process.poll() is None and not set(half_written(folder)) - known:
        assert time.monotonic() < end, "no save in a minute"
        time.sleep(0.001)


def test_killed_twenty_times(whole, tmp_path):
    """SIGKILL at 20 moments, then the same command line, with one and two threads in turn.

    Most moments are random; each fifth one waits until a save has written its first bytes.
    """
    moments = random.Random(6)
    runs = kills = in_save = 0
    while kills < 20:
        folder = tmp_path / f"run{runs}"
        known = set(half_written(folder))
        process = start(folder, threads=1 + kills % 2, slow=0.03)
        assert process.stdout.readline() == "start\n", process.stderr.read()
        if kills % 5 == 4:
            wait_for_save(process, folder, known)
        else:
            time.sleep(moments.uniform(0.0, 0.35))
        process.send_signal(signal.SIGKILL)
        _, err = process.communicate(timeout=60)
        if process.returncode == 0:  # it was done before: the next one starts anew
            assert files(folder) == files(whole)
            runs += 1
            continue
        assert process.returncode == -signal.SIGKILL, err
        kills += 1
        in_save += bool(set(half_written(folder)) - known)
    finish(start(folder, threads=2))
    assert files(folder) == files(whole)
    assert in_save >= 1, "no kill hit a save"


def test_a_kill_inside_each_save(whole, tmp_path):
    """The process ends between the write and the rename of every third file."""
    folder = tmp_path / "run"
    killer = """
import os, sys
real, count = os.replace, 0
def replace(a, b):
    global count
    count += 1
    if count == 3:
        os.kill(os.getpid(), 9)
    real(a, b)
os.replace = replace
exec(compile(open(sys.argv[1]).read(), sys.argv[1], "exec"))
"""
    folder.mkdir()
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "killer.py").write_text(killer.replace("sys.argv[1]", repr(str(tmp_path / "script.py"))))
    command = [sys.executable, str(tmp_path / "killer.py"), str(folder), "1", "0"]
    codes = []
    while not codes or (codes[-1] != 0 and len(codes) < 40):
        codes.append(subprocess.run(command, capture_output=True, timeout=60).returncode)
    assert codes[-1] == 0 and set(codes[:-1]) == {-9} and len(codes) > 5
    assert files(folder) == files(whole)


def test_a_torn_newest_checkpoint(whole, tmp_path):
    """The newest file is damaged; the one before it is used and the rest is made again."""
    folder = tmp_path / "run"
    finish(start(folder))
    for name, change in (("24", lambda raw: raw[: len(raw) // 2]), ("22", lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]))):
        path = folder / "checkpoints" / f"step-000000{name}.safetensors"
        path.write_bytes(change(path.read_bytes()))
    assert "resuming from step-00000020" in finish(start(folder))
    assert files(folder) == files(whole)


def test_the_final_file_holds_every_part(whole):
    tensors = pb.load(whole / "final.safetensors")
    parts = {name.split("/")[0] for name in tensors}
    assert parts == {"model", "optimizer", "ema", "history"}
    state = json.loads(pb.io.metadata(whole / "final.safetensors")["trainer"])["state"]
    assert state["step"] == 24 and state["epoch"] == 6 and state["batch"] == 0
    assert {"generator", "loader", "schedule", "callbacks", "means"} <= state.keys()
    assert Path(whole).exists() and os.path.getsize(whole / "final.safetensors") > 1000
