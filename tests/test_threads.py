"""The thread pool: settings, forks, many callers, the same bits."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import pullback as pb


def test_settings():
    pb.set_num_threads(3)
    assert pb.get_num_threads() == 3
    with pytest.raises(ValueError, match="at least 1"):
        pb.set_num_threads(0)


def test_more_threads_than_cores_give_the_same_bits():
    x = pb.asarray(np.random.default_rng(0).normal(size=(1200, 700)).astype(np.float32))
    results = []
    for n in (1, 2, 3, 8, 1):
        pb.set_num_threads(n)
        results.append(
            (pb.exp(x).tobytes(), pb.sum(x, axis=0).tobytes(), (x @ x.mT).tobytes(), pb.softmax(x).tobytes())
        )
    assert all(r == results[0] for r in results)


def test_a_forked_child_computes():
    """A child has none of its parent's workers; it must neither hang nor crash."""
    program = """
import os, sys
import pullback as pb
x = pb.ones((1 << 20,))
pb.set_num_threads(2)
want = pb.sum(x * 2).item()
pid = os.fork()
if pid == 0:
    os._exit(0 if pb.sum(x * 2).item() == want else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], env=env, timeout=60)
    assert done.returncode == 0


def test_many_python_threads_get_right_gradients():
    pb.set_num_threads(2)
    w = pb.asarray(np.random.default_rng(1).normal(size=(64, 64)))
    xs = [pb.asarray(np.random.default_rng(i).normal(size=(128, 64))) for i in range(8)]

    def run(x):
        v = pb.tensor(x, requires_grad=True)
        (pb.tanh(v @ w) ** 2).sum().backward()
        return v.grad.numpy().copy()

    want = [run(x) for x in xs]
    got = [None] * 8

    def work(i):
        for _ in range(5):
            got[i] = run(xs[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for a, b in zip(got, want, strict=True):
        assert (a == b).all()
