"""pb.testing.gradcheck: accepts right derivatives, refuses wrong, missing and NaN ones, names the place."""

import math

import pytest

import pullback as pb


def f64(*values):
    return pb.tensor(list(values), dtype=pb.float64)


@pytest.mark.parametrize("order", [1, 2])
def test_accepts(order):
    x, y = f64(0.3, -1.2, 2.0), f64(1.5, 0.4, -0.7)
    assert pb.testing.gradcheck(lambda a: pb.exp(a) * pb.sin(a), x, order=order)
    assert pb.testing.gradcheck(lambda a, b: (a * b, pb.sum(a / (b + 3))), (x, y), order=order)
    assert pb.testing.gradcheck(lambda a, b: {"p": a @ b, "q": [a * 2]}, [x, y], order=order)
    assert pb.testing.gradcheck(lambda a: a[0] * a[1] * a[2], x, order=order)


def test_third_order():
    assert pb.testing.gradcheck(lambda a: a**4, f64(0.7), order=3)


def test_constants_and_integers_pass_through():
    index = pb.tensor([1, 0])
    assert pb.testing.gradcheck(lambda a, i, n: pb.take(a, i, axis=0) * n, (f64(0.3, 2.0), index, 3))
    assert pb.testing.gradcheck(lambda a: (a * 2, pb.argmax(a)), f64(0.3, 2.0))


def test_independent_and_empty_inputs():
    assert pb.testing.gradcheck(lambda a, b: a * 2, (f64(1.0), f64(3.0)), order=2)
    assert pb.testing.gradcheck(lambda a: a * a, pb.zeros((0, 2), dtype=pb.float64))


def test_inputs_are_not_changed():
    x = f64(1.0, 2.0)
    x.requires_grad = True
    before = x.tobytes()
    pb.testing.gradcheck(lambda a: a * a, x, order=2)
    assert x.tobytes() == before and x.grad is None


def make(pull, push):
    @pb.custom
    def cube(x):
        return x * x * x

    cube.pull(pull)
    cube.push(push)
    return cube


def right_pull(g, out, x):
    return g * 3 * x * x


def right_push(t, out, x):
    return t[0] * 3 * x * x


def test_custom_rules():
    assert pb.testing.gradcheck(make(right_pull, right_push), f64(0.5, -2.0), order=2)


def test_refuses_a_wrong_pull():
    f = make(lambda g, out, x: g * 3 * x, right_push)
    with pytest.raises(AssertionError, match=r"gradcheck reverse: output 0\[1\] by input 0\[1\]") as info:
        pb.testing.gradcheck(f, f64(1.0, -2.0))
    text = str(info.value)
    assert "the derivative is -6.0" in text and "central difference 12.0" in text and "help: " in text
    assert pb.testing.gradcheck(f, f64(1.0, -2.0), modes=("forward",))


def test_refuses_a_wrong_push():
    f = make(right_pull, lambda t, out, x: t[0] * 3)
    with pytest.raises(AssertionError, match=r"gradcheck forward: output 0\[1\] by input 0\[1\]"):
        pb.testing.gradcheck(f, f64(1.0, -2.0))
    assert pb.testing.gradcheck(f, f64(1.0, -2.0), modes="reverse")


def test_refuses_a_wrong_second_derivative():
    """A pull that is right in value and cut from the graph."""
    f = make(lambda g, out, x: g * 3 * pb.stop_gradient(x * x), right_push)
    assert pb.testing.gradcheck(f, f64(0.5))
    with pytest.raises(AssertionError, match="gradcheck reverse then reverse: output 0"):
        pb.testing.gradcheck(f, f64(0.5), order=2)


def test_refuses_a_small_error():
    f = make(lambda g, out, x: g * 3.001 * x * x, right_push)
    with pytest.raises(AssertionError, match="gradcheck reverse"):
        pb.testing.gradcheck(f, f64(0.5))


def test_refuses_nan():
    f = make(lambda g, out, x: g * math.nan, right_push)
    with pytest.raises(AssertionError, match="the derivative is nan"):
        pb.testing.gradcheck(f, f64(0.5))
    with pytest.raises(AssertionError, match="central difference nan"):
        pb.testing.gradcheck(lambda x: pb.log(x), f64(-1.0))


def test_refuses_a_kink():
    with pytest.raises(AssertionError, match="kink"):
        pb.testing.gradcheck(pb.relu, f64(0.0))


def test_names_the_second_output_and_input():
    def f(a, b):
        return a * 2, make(lambda g, out, x: g, right_push)(b)

    with pytest.raises(AssertionError, match=r"output 1\[0, 1\] by input 2\[0, 1\]"):
        pb.testing.gradcheck(lambda a, n, b: f(a, b), (f64(1.0), 3, pb.reshape(f64(1 / math.sqrt(3), 2.0), (1, 2))))


def test_refuses_randomness():
    with pytest.raises(AssertionError, match="differs between two calls"):
        pb.testing.gradcheck(lambda x: x * pb.random.normal(2, dtype=pb.float64), f64(1.0, 2.0))


@pytest.mark.parametrize(
    "call, error, text",
    [
        (lambda: pb.testing.gradcheck(pb.sin, pb.tensor([1.0])), pb.DTypeError, "input 0 is float32"),
        (lambda: pb.testing.gradcheck(lambda x: x, pb.tensor([1])), ValueError, "no input is a float64 tensor"),
        (lambda: pb.testing.gradcheck(pb.argmax, f64(1.0)), ValueError, "returns no floating tensor"),
        (lambda: pb.testing.gradcheck(pb.sin, f64(1.0), modes=("backward",)), ValueError, "modes are"),
        (lambda: pb.testing.gradcheck(pb.sin, f64(1.0), modes=()), ValueError, "modes are"),
        (lambda: pb.testing.gradcheck(pb.sin, f64(1.0), order=0), ValueError, "at least 1"),
    ],
)
def test_errors(call, error, text):
    with pytest.raises(error, match=text) as info:
        call()
    assert "help: " in str(info.value)
