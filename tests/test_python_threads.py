"""Python threads beside the engine's own: the interpreter lock, shared weights, Ctrl-C."""

import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import pullback as pb


@pytest.fixture
def rare_switches():
    """A thread keeps the interpreter lock until it gives it up."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(30)
    yield
    sys.setswitchinterval(before)


def one_matmul():
    a = pb.ones((1500, 1500), dtype=pb.float64)
    return lambda: a @ a


def one_map():
    x = pb.ones((20_000_000,))
    return lambda: pb.sin(x)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("make", [one_matmul, one_map])
def test_a_long_kernel_gives_up_the_lock(rare_switches, make, threads):
    pb.set_num_threads(threads)
    call = make()
    turns, seen, done = [0], [], threading.Event()

    def work():
        seen.append(turns[0])
        call()
        seen.append(turns[0])
        done.set()

    worker = threading.Thread(target=work)
    worker.start()
    while not done.is_set():
        turns[0] += 1
        time.sleep(0)  # the only place where this thread gives up the lock
    worker.join()
    assert seen[1] > seen[0]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_short_kernel_keeps_it(rare_switches, threads):
    pb.set_num_threads(threads)
    x = pb.ones((16,))
    turns, seen, stop = [0], [], threading.Event()

    def count():
        while not stop.is_set():
            turns[0] += 1
            time.sleep(0)

    other = threading.Thread(target=count)
    other.start()
    before = turns[0]
    for _ in range(1000):
        pb.add(x, x)
    seen.append(turns[0])
    stop.set()
    other.join()
    assert seen == [before]


@pytest.mark.parametrize("threads", [1, 2])
def test_shared_weights(threads):
    """Eight threads add into the same leaves. All numbers are small integers, so every order gives the same sum."""
    pb.set_num_threads(threads)
    rng = np.random.default_rng(0)
    w = pb.tensor(rng.integers(-2, 3, (300, 400)).astype(np.float64), requires_grad=True)
    v = pb.tensor(rng.integers(-2, 3, (400,)).astype(np.float64), requires_grad=True)
    batches = [rng.integers(-2, 3, (256, 300)).astype(np.float64) for _ in range(8)]
    errors = []

    def work(batch):
        try:
            for _ in range(20):
                y = pb.relu(pb.asarray(batch) @ w + v)
                (y * y).sum().backward()
        except Exception as e:  # shown by the main thread
            errors.append(e)

    workers = [threading.Thread(target=work, args=(b,)) for b in batches]
    for t in workers:
        t.start()
    for t in workers:
        t.join()
    assert not errors
    want_w, want_v = np.zeros((300, 400)), np.zeros(400)
    for b in batches:
        g = 2 * np.maximum(b @ w.detach().numpy() + v.detach().numpy(), 0)
        want_w += 20 * (b.T @ g)
        want_v += 20 * g.sum(axis=0)
    assert np.array_equal(w.grad.numpy(), want_w)
    assert np.array_equal(v.grad.numpy(), want_v)


def test_two_backwards_through_one_graph():
    """The second is refused while the first is inside; afterwards the graph is whole."""
    x = pb.tensor([1.0, 2.0], requires_grad=True)
    y = x * x
    inner = []

    def hook(g):
        with pb.enable_grad():
            loss = (y * 3).sum()
        with pytest.raises(pb.GraphError, match="another backward is running through this graph"):
            loss.backward(retain_graph=True)
        inner.append(g)

    z = y * 1.0
    w = z * z + y  # y waits for z's cotangent while the hook of z runs
    z.register_hook(hook)
    w.sum().backward(retain_graph=True)
    assert len(inner) == 1
    assert np.array_equal(x.grad.numpy(), [4 * 1 + 2 * 1, 4 * 8 + 2 * 2])


SCRIPT = """
import pullback as pb
x = pb.ones((400, 400)).requires_grad_()
w = pb.ones((400, 400)) / 400
y = x
for _ in range(1500):
    y = y @ w
try:
    print("backward", flush=True)
    y.sum().backward()
except KeyboardInterrupt:
    print("interrupted", x.grad is None, flush=True)
x = pb.ones((3,)).requires_grad_()  # the engine goes on
(x * x).sum().backward()
print(x.grad.tolist())
"""


def test_ctrl_c_reaches_a_backward():
    """The backward takes some seconds and is left before it ends."""
    command = [sys.executable, "-c", SCRIPT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "backward\n", process.stderr.read()
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert out == "interrupted True\n[2.0, 2.0, 2.0]\n", err
