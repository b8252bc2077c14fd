"""Datasets and the loader: order, batches, workers, position, errors."""

import collections
import gc
import gzip
import multiprocessing
import os
import pathlib
import struct
import subprocess
import sys
import threading
import time

import pytest

import pullback as pb
from pullback.data import DataLoader, RandomWindows, TensorDataset, Text, Windows, batch_rng, collate


def rows(n):
    return TensorDataset(pb.arange(n), pb.arange(n).astype(pb.float32) * 0.5)


def flat(loader):
    return [v for batch in loader for v in batch[0].tolist()]


def loader_threads():
    return [t for t in threading.enumerate() if t.name.startswith("pullback-loader")]


# ---- datasets and collate


def test_tensor_dataset():
    data = TensorDataset(pb.reshape(pb.arange(6), (3, 2)), pb.arange(3))
    assert len(data) == 3
    x, y = data[1]
    assert x.tolist() == [2, 3] and y.item() == 1
    x, y = data.batch(pb.tensor([2, 0]))
    assert x.tolist() == [[4, 5], [0, 1]] and y.tolist() == [2, 0]


@pytest.mark.parametrize("tensors", [(), (pb.ones(3), pb.ones(2)), (pb.ones(()),)])
def test_tensor_dataset_refuses_other_lengths(tensors):
    with pytest.raises(pb.ShapeError, match="one common first axis") as info:
        TensorDataset(*tensors)
    assert "\nhelp: " in str(info.value)


def test_collate():
    Pair = collections.namedtuple("Pair", "a b")
    batch = collate(
        [
            {"x": pb.ones(2), "t": (1, 2.5), "p": Pair(True, "s"), "l": [3]},
            {"x": pb.zeros(2), "t": (2, 1.0), "p": Pair(False, "t"), "l": [4]},
        ]
    )
    assert batch["x"].tolist() == [[1, 1], [0, 0]]
    assert batch["t"][0].tolist() == [1, 2] and batch["t"][0].dtype == pb.int64
    assert batch["t"][1].tolist() == [2.5, 1.0] and batch["t"][1].dtype == pb.float32
    assert batch["p"].a.dtype == pb.bool and batch["p"].b == ["s", "t"] and batch["l"][0].tolist() == [3, 4]


def test_collate_takes_numpy_arrays():
    np = pytest.importorskip("numpy")
    batch = collate([np.arange(2), np.arange(2) + 1])
    assert isinstance(batch, pb.Tensor) and batch.tolist() == [[0, 1], [1, 2]]


def test_a_list_is_a_dataset():
    assert [b.tolist() for b in DataLoader([3, 1, 2], 2)] == [[3, 1], [2]]
    assert list(DataLoader(["a", "b"], 2, collate="".join)) == ["ab"]


# ---- order


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_plain_order_and_last_batch(workers):
    data = rows(7)
    assert [b[0].tolist() for b in DataLoader(data, 3, workers=workers)] == [[0, 1, 2], [3, 4, 5], [6]]
    short = DataLoader(data, 3, drop_last=True, workers=workers)
    assert [b[0].tolist() for b in short] == [[0, 1, 2], [3, 4, 5]] and len(short) == 2
    assert len(DataLoader(data, 3)) == 3 and list(DataLoader(rows(0), 3, workers=workers)) == []


def test_shuffling_is_seeded_and_new_each_epoch():
    a, b, c = (DataLoader(rows(50), 8, shuffle=True, seed=s) for s in (1, 1, 2))
    first, second = flat(a), flat(a)
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second and first != list(range(50))
    assert [flat(b), flat(b)] == [first, second] and flat(c) != first


def test_shuffling_leaves_the_default_generator_alone():
    pb.manual_seed(5)
    before = pb.random.default_generator().get_state()
    flat(DataLoader(rows(50), 8, shuffle=True))
    assert pb.random.default_generator().get_state() == before


def test_leaving_early_starts_the_next_epoch():
    a, b = (DataLoader(rows(20), 4, shuffle=True) for _ in range(2))
    next(iter(a))
    first, second = flat(b), flat(b)
    assert first != second and flat(a) == second


# ---- position


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", range(6))
def test_position_is_restored_exactly(workers, stop):
    def make():
        return DataLoader(rows(10), 2, shuffle=True, seed=3, workers=workers)

    whole = [flat(loader) for loader in [make()] for _ in range(3)]
    first = make()
    flat(first)
    it = iter(first)
    seen = [v for _ in range(stop) for v in next(it)[0].tolist()]
    state = first.state_dict()
    assert state["position"] == stop  # batches loaded ahead do not count
    it.close()
    second = make()
    second.load_state_dict(state)
    assert seen + flat(second) == whole[1]
    assert flat(second) == whole[2]


def test_a_finished_epoch_is_followed_by_the_next():
    a, b = (DataLoader(rows(10), 3, shuffle=True) for _ in range(2))
    flat(a)
    b.load_state_dict(a.state_dict())
    assert b.state_dict()["epoch"] == 1 and flat(a) == flat(b)


@pytest.mark.parametrize("change", [{"batch_size": 3}, {"seed": 1}, {"shuffle": False}, {"drop_last": True}])
def test_position_of_another_loader(change):
    arguments = {"dataset": rows(10), "batch_size": 2, "shuffle": True}
    state = DataLoader(**arguments).state_dict()
    name = next(iter(change))
    with pytest.raises(pb.CheckpointError, match=f"saved position has {name}="):
        DataLoader(**(arguments | change)).load_state_dict(state)
    with pytest.raises(pb.CheckpointError, match="saved position has length=10, this loader has 9"):
        DataLoader(**(arguments | {"dataset": rows(9)})).load_state_dict(state)


# ---- workers


class Squares:
    """A dataset that draws, fails or is slow on request, by items."""

    def __init__(self, bad=None, seconds=0.0, die=None):
        self.bad, self.seconds, self.die = bad, seconds, die

    def __len__(self):
        return 12

    def __getitem__(self, i):
        if i == self.bad:
            raise LookupError(f"item {i} is broken")
        if i == self.die:
            os._exit(3)
        time.sleep(self.seconds)
        noise = pb.random.uniform((), rng=batch_rng()).item()
        return {"square": i * i, "noise": noise, "pid": os.getpid()}


def content(loader):
    return [(b["square"].tolist(), b["noise"].tolist()) for b in loader]


def test_draws_do_not_depend_on_the_workers():
    a, b = (DataLoader(Squares(), 5, shuffle=True, workers=w) for w in (0, 3))
    first, second = content(a), content(a)
    assert [content(b), content(b)] == [first, second] and first != second


def test_worker_processes_are_spawned_and_stay():
    c = DataLoader(Squares(), 5, shuffle=True, workers=2, worker_type="spawn")
    plain = DataLoader(Squares(), 5, shuffle=True)
    assert pb.sum(pb.matmul(pb.ones((64, 64)), pb.ones((64, 64)))).item() == 64**3  # the parent has used threads
    epochs = [list(c) for _ in range(2)]
    assert [[(b["square"].tolist(), b["noise"].tolist()) for b in e] for e in epochs] == [
        content(plain),
        content(plain),
    ]
    pids = [{p for b in e for p in b["pid"].tolist()} for e in epochs]
    assert os.getpid() not in pids[0] | pids[1] and len(pids[0] | pids[1]) <= 2
    next(iter(c))  # left early
    assert multiprocessing.active_children()
    c.close()
    assert not multiprocessing.active_children()


def test_worker_processes_report_errors_and_end_with_the_loader():
    loader = DataLoader(Squares(bad=7), 4, workers=1, worker_type="spawn")
    it = iter(loader)
    assert next(it)["square"].tolist() == [0, 1, 4, 9]
    with pytest.raises(LookupError, match="item 7 is broken") as info:
        next(it)
    assert "in __getitem__" in str(info.value.__cause__)  # the worker's traceback
    del it, info
    del loader
    gc.collect()
    deadline = time.monotonic() + 60  # joining them here would race with the pool's own thread, which joins them too
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not multiprocessing.active_children()


def test_a_worker_process_that_dies():
    loader = DataLoader(Squares(die=2), 4, workers=1, worker_type="spawn")
    with pytest.raises(RuntimeError, match="a worker process ended before it gave its batch") as info:
        list(loader)
    assert "\nhelp: " in str(info.value) and "__main__" in str(info.value)


def test_workers_end_with_a_killed_parent(tmp_path):
    code = (
        "import os, sys, time\n"
        f"sys.path.insert(0, {os.path.dirname(__file__)!r})\n"
        "import pullback as pb\n"
        "from test_data import Squares\n"
        "if __name__ == '__main__':\n"
        "    it = iter(pb.data.DataLoader(Squares(), 4, workers=1, worker_type='spawn'))\n"
        "    print(next(it)['pid'][0].item(), flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    (tmp_path / "script.py").write_text(code)
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, timeout=60)
    assert done.returncode == -9, done.stderr
    pid = int(done.stdout)
    for _ in range(100):
        if not os.path.exists(f"/proc/{pid}") or pathlib.Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
            return
        time.sleep(0.1)
    pytest.fail("the worker outlives its parent")


def test_thread_errors_keep_their_traceback():
    it = iter(DataLoader(Squares(bad=7), 4, workers=2))
    assert next(it)["square"].tolist() == [0, 1, 4, 9]
    with pytest.raises(LookupError, match="item 7 is broken") as info:
        next(it)
    assert any(entry.name == "__getitem__" for entry in info.traceback)
    del info, it
    assert not loader_threads()


def test_leaving_early_ends_the_threads():
    loader = DataLoader(Squares(seconds=0.01), 2, workers=3)
    for _ in loader:
        assert loader_threads()
        break
    gc.collect()
    assert not loader_threads()


def test_workers_load_ahead_but_not_without_bound():
    asked = []

    class Counting:
        def __len__(self):
            return 100

        def __getitem__(self, i):
            asked.append(i)
            return i

    it = iter(DataLoader(Counting(), 1, workers=2, prefetch=3))
    next(it)
    time.sleep(0.2)
    assert 2 <= len(asked) <= 2 * 3 + 1
    it.close()


@pytest.mark.parametrize(
    "arguments, text",
    [
        ({"batch_size": 0}, "batch_size must be an integer of at least 1, got 0"),
        ({"batch_size": 2.0}, "batch_size must be an integer"),
        ({"workers": -1}, "workers must be an integer of at least 0"),
        ({"prefetch": 0}, "prefetch must be an integer of at least 1"),
        ({"worker_type": "fork"}, "unknown worker_type 'fork'"),
    ],
)
def test_bad_loader_arguments(arguments, text):
    with pytest.raises(ValueError, match=text) as info:
        DataLoader(rows(3), **({"batch_size": 1} | arguments))
    assert "\nhelp: " in str(info.value)


# ---- digits


def test_digits():
    train, test = pb.data.digits()
    assert len(train) == 1437 and len(test) == 360
    x, y = train.batch(pb.arange(1437))
    assert tuple(x.shape) == (1437, 1, 8, 8) and x.dtype == pb.float32 and y.dtype == pb.int64
    assert pb.min(x).item() == 0.0 and pb.max(x).item() == 1.0
    assert sorted(set(y.tolist())) == list(range(10))
    everything = sorted(train.tensors[0].tolist() + test.tensors[0].tolist())
    assert len(everything) == 1797
    again = pb.data.digits()[1]
    assert again.tensors[1].tolist() == test.tensors[1].tolist()


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"pip install \"pullback\[demo\]\""):
        pb.data.digits()


# ---- mnist


def idx(shape, values, code=8):
    return bytes([0, 0, code, len(shape)]) + b"".join(struct.pack(">I", n) for n in shape) + bytes(values)


def write_mnist(folder, prefix, n, compress=False, side=2):
    size = side * side
    files = {
        f"{prefix}-images-idx3-ubyte": idx((n, side, side), [i * 4 % 256 for i in range(n * size)]),
        f"{prefix}-labels-idx1-ubyte": idx((n,), [i % 10 for i in range(n)]),
    }
    for name, raw in files.items():
        if compress:
            (folder / (name + ".gz")).write_bytes(gzip.compress(raw))
        else:
            (folder / name).write_bytes(raw)


@pytest.mark.parametrize("compress", [False, True])
def test_mnist_files(tmp_path, compress):
    write_mnist(tmp_path, "train", 6, compress)
    write_mnist(tmp_path, "t10k", 3, compress)
    train, test = pb.data.mnist(tmp_path), pb.data.mnist(tmp_path, train=False)
    assert (len(train), len(test)) == (6, 3)
    x, y = train[1]
    assert tuple(x.shape) == (1, 2, 2) and x.dtype == pb.float32 and y.dtype == pb.int64 and y.item() == 1
    assert [round(v * 255) for v in pb.reshape(x, (-1,)).tolist()] == [16, 20, 24, 28]


def test_mnist_with_test_files_only(tmp_path):
    write_mnist(tmp_path, "t10k", 10_000)
    train, test = pb.data.mnist(tmp_path), pb.data.mnist(tmp_path, train=False)
    assert (len(train), len(test)) == (9000, 1000)
    assert (
        test[0][0].tolist() == TensorDataset(*train.tensors)[9000 % 64 + 0][0].tolist()
    )  # the values repeat every 64 images


@pytest.mark.parametrize(
    "name, change, text",
    [
        ("train-images-idx3-ubyte", lambda raw: raw[:-1], "cut short or too long: shape"),
        ("train-images-idx3-ubyte", lambda raw: raw + b"1", "cut short or too long: shape"),
        ("train-images-idx3-ubyte", lambda raw: raw[:7], "cut short: 7 bytes cannot hold the header"),
        ("train-images-idx3-ubyte", lambda raw: b"", "cut short: 0 bytes"),
        ("train-images-idx3-ubyte", lambda raw: b"PNG!" + raw[4:], "no IDX file of bytes with 3 axes"),
        ("train-labels-idx1-ubyte", lambda raw: raw[:3] + b"\3" + raw[4:], "no IDX file of bytes with 1 axes"),
        ("train-labels-idx1-ubyte", lambda raw: idx((4,), range(4)), "6 images but 4 labels"),
    ],
)
def test_damaged_mnist(tmp_path, name, change, text):
    write_mnist(tmp_path, "train", 6)
    path = tmp_path / name
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(pb.CheckpointError, match=text) as info:
        pb.data.mnist(tmp_path)
    assert "\nhelp: " in str(info.value)


@pytest.mark.parametrize("cut", [5, 15, 30, -1, -9])
def test_compressed_mnist_cut_short(tmp_path, cut):
    write_mnist(tmp_path, "train", 6, compress=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(pb.CheckpointError, match="cut short or damaged"):
        pb.data.mnist(tmp_path)


def test_mnist_missing_and_download(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file train-images-idx3-ubyte or"):
        pb.data.mnist(tmp_path)
    with pytest.raises(ValueError, match="downloading is not offered"):
        pb.data.mnist(tmp_path, download=True)


# ---- text


def test_text(tmp_path):
    content = "héllo wörld\n" * 10 + "😀"
    (tmp_path / "t.txt").write_text(content, encoding="utf-8")
    t = pb.data.text(tmp_path / "t.txt")
    assert t.vocabulary == "".join(sorted(set(content))) and len(t) == 121
    assert t.train.dtype == pb.int64 and t.train.shape[0] == 108 and t.valid.shape[0] == 13
    assert t.decode(t.train) + t.decode(t.valid) == content
    assert t.encode("hö😀").tolist() == [t.vocabulary.index(c) for c in "hö😀"] and t.decode([0]) == t.vocabulary[0]
    assert t.encode("").tolist() == []


def test_text_errors(tmp_path):
    t = Text("abc")
    with pytest.raises(ValueError, match="the vocabulary has no 'xy'"):
        t.encode("axbyc")
    with pytest.raises(ValueError, match=r"codes lie in 0\.\.2"):
        t.decode([3])
    with pytest.raises(ValueError, match="the text is empty"):
        Text("")
    (tmp_path / "latin").write_bytes(b"\xe9t\xe9")
    with pytest.raises(ValueError, match="is not UTF-8"):
        pb.data.text(tmp_path / "latin")
    with pytest.raises(FileNotFoundError):
        pb.data.text(tmp_path / "none")


def test_windows():
    w = Windows(pb.arange(10), 4)
    assert len(w) == 6
    x, y = w[-1]
    assert x.tolist() == [5, 6, 7, 8] and y.tolist() == [6, 7, 8, 9]
    x, y = w.batch(pb.tensor([0, 5]))
    assert x.tolist() == [[0, 1, 2, 3], [5, 6, 7, 8]] and y.tolist() == [[1, 2, 3, 4], [6, 7, 8, 9]]
    spaced = Windows(pb.arange(10), 3, stride=3)  # 0..2, 3..5, 6..8: code 9 is a target
    assert len(spaced) == 3 and spaced[2][1].tolist() == [7, 8, 9]
    assert spaced.batch(pb.tensor([1]))[0].tolist() == [[3, 4, 5]] and len(Windows(pb.arange(9), 3, stride=3)) == 2
    with pytest.raises(ValueError, match="stride must be at least 1"):
        Windows(pb.arange(10), 3, stride=0)
    with pytest.raises(IndexError, match="index 6 is out of range for 6 windows"):
        w[6]
    for codes, length in ((pb.arange(4), 4), (pb.arange(4), 0), (pb.ones((2, 9)), 3)):
        with pytest.raises(pb.ShapeError, match="do not fit codes of shape"):
            Windows(codes, length)


def test_random_windows_come_from_the_position():
    data = RandomWindows(pb.arange(100), 5, 6)
    a, b = (DataLoader(data, 4, workers=w) for w in (0, 2))
    first = [x.tolist() for x, _ in a]
    assert [len(x) for x in first] == [4, 2] and [x.tolist() for x, _ in b] == first
    second = [x.tolist() for x, _ in a]
    assert second != first
    for x, y in a:
        assert pb.all(y == x + 1).item() and pb.min(x).item() >= 0 and pb.max(y).item() <= 99
    assert data[0][0].shape == (5,)
