"""Row 197, "DoG is SGD's Best Friend: A Parameter-Free Dynamic Step Size Schedule". The whole check is run."""

import numpy as np
import pytest

import pullback as pb
from pullback import optim


def run(h, x0, steps, eps, factor=1.0, dtype="float64", look=None):
    x, th = pb.tensor(x0.astype(dtype)), pb.tensor((factor * h).astype(dtype))
    x.requires_grad = True
    opt = optim.DoG([x], lr=1.0, reps_rel=1e-6, eps=eps)
    for t in range(1, steps + 1):
        opt.step(lambda: 0.5 * (th * x * x).sum())
        if look is not None:
            look(t, np.array(x.detach().numpy()), opt)
    return np.array(x.detach().numpy()), opt


H2, ONES = np.array([1.0, 10.0]), np.array([1.0, 1.0])


def test_the_loss_may_be_scaled():
    paths = {1.0: [], 1e6: []}
    for factor, path in paths.items():
        run(H2, ONES, 5000, 0.0, factor, look=lambda t, x, opt, path=path: path.append(x))
    assert np.max(np.abs(np.array(paths[1.0]) - np.array(paths[1e6]))) <= 1e-12


def test_the_last_iterate_reaches_the_minimum():
    reached = []

    def look(t, x, opt):
        if not reached and 0.5 * (H2 * x * x).sum() < 1e-25:
            reached.append(t)

    x, _ = run(H2, ONES, 5000, 1e-8, look=look)
    assert 0.5 * (H2 * x * x).sum() < 1e-25
    assert abs(reached[0] - 1691) <= 1


def test_length_of_the_first_step():
    def look(t, x, opt):
        d = opt.state_dict()["state.0.displacement"].numpy()
        assert abs(np.linalg.norm(d) / (1e-6 * (1 + np.sqrt(2))) - 1) <= 1e-8

    run(H2, ONES, 1, 0.0, look=look)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-6)])
def test_a_hundred_steps_equal_the_transcription(dtype, tolerance):
    h = np.logspace(-3, 0, 100)
    x0 = np.random.default_rng(197).normal(size=100).astype(dtype).astype(np.float64)
    p, r, square, average, plain = x0, 1e-6 * (1 + np.linalg.norm(x0)), 1e-8, x0, x0.astype(np.float32)
    distance, squares = np.float32(r), np.float32(1e-8)
    for t in range(1, 101):
        r = max(r, np.linalg.norm(p - x0))
        g = h * p
        square += g @ g
        p = p - r / np.sqrt(square) * g
        average = average + 9 / (8 + t) * (p - average)
        low = h.astype(np.float32) * plain
        distance = max(distance, np.linalg.norm(plain - x0.astype(np.float32)))
        squares = squares + low @ low
        plain = plain - distance / np.sqrt(squares) * low
    got, opt = run(h, x0, 100, 1e-8, dtype=dtype)
    assert np.linalg.norm(got - p) <= tolerance * np.linalg.norm(p)
    mean = opt.averaged_parameters()[0].numpy()
    assert np.linalg.norm(mean - average) <= tolerance * np.linalg.norm(average)
    assert np.linalg.norm(plain - p) > 1e-5 * np.linalg.norm(p)  # what the displacement is for


def test_start_and_displacement_count_as_state():
    """Two tensors, three with the average: 12 + 8 a tensor, and the gradient is read once more for its norm."""
    x = pb.tensor(np.ones(1000, np.float32))
    for average, tensors in ((False, 2), (True, 3)):
        opt = optim.DoG([x], average=average)
        opt.step(grads=[pb.tensor(np.ones(1000, np.float32))])
        kept = [k for k, v in opt.state_dict().items() if k.startswith("state.") and isinstance(v, pb.Tensor)]
        assert {"state.0.start", "state.0.displacement"} <= set(kept) and len(kept) == tensors
        assert opt.bytes_per_step() >= 1000 * (12 + 8 * tensors)
