"""Uses the ops of cube_ops: forward, gradient, second order, jvp, dtypes, layouts, threads, errors."""

import numpy as np

import pullback as pb

try:
    pb.op("cube")
except ValueError as e:
    assert "no element-wise op is called cube" in str(e) and "help: " in str(e)
else:
    raise AssertionError("cube exists before its module is imported")

import cube_ops

cube, blend = pb.op("cube"), pb.op("blend")
assert pb.op("cube") is cube and repr(cube) == "<pullback op cube>"
assert cube.__doc__ == "cube(x)\n\nx * x * x."
row = next(r for r in pb.ops() if r["name"] == "cube")
assert (row["family"], row["unit"], row["derivative"]) == ("Map", "extension", "pull")

rng = np.random.default_rng(0)


def close(got: pb.Tensor, want: np.ndarray, tolerance: float = 1e-12) -> None:
    assert got.shape == want.shape, (got.shape, want.shape)
    assert np.all(np.abs(got.numpy() - want) <= tolerance * (1 + np.abs(want)))


# Forward: float64, float32, half precision, strided, reversed, broadcast, empty, NaN, above the threading threshold.
a, b = rng.normal(size=(5, 7)), rng.normal(size=(7,))
close(cube(pb.asarray(a)), a**3)
close(cube(pb.asarray(a.astype(np.float32))), a**3, 1e-6)
close(cube(pb.asarray(a).astype(pb.bfloat16)).astype(pb.float64), a**3, 3e-2)
close(cube(pb.asarray(a)[::-1, ::2]), a[::-1, ::2] ** 3)
close(blend(pb.asarray(a), pb.asarray(b), rate=0.25), np.exp(0.25 * a) * b)
close(blend(pb.asarray(a), 2.0), np.exp(0.5 * a) * 2)
assert cube(pb.zeros((0, 3))).shape == (0, 3)
assert np.isnan(cube(pb.tensor([float("nan")])).numpy()).all()
big = rng.normal(size=1_000_003)
close(cube(pb.asarray(big)), big**3)

# Gradient (the fused pull), second and third order (the graph pull), forward mode.
x = pb.tensor(a, requires_grad=True, dtype=pb.float64)
cube(x).sum().backward()
close(x.grad, 3 * a**2)
one = pb.tensor(1.5, dtype=pb.float64)
assert abs(pb.grad(cube)(one).item() - 6.75) <= 1e-12
assert abs(pb.grad(pb.grad(cube))(one).item() - 9.0) <= 1e-12
assert abs(pb.grad(pb.grad(pb.grad(cube)))(one).item() - 6.0) <= 1e-12
v = rng.normal(size=a.shape)
out, tangent = pb.jvp(cube, (pb.asarray(a),), (pb.asarray(v),))
close(out, a**3)
close(tangent, 3 * a**2 * v)
ga, gb = pb.grad(lambda p, q: blend(p, q, rate=0.25).sum(), argnums=(0, 1))(pb.asarray(a), pb.asarray(b))
close(ga, 0.25 * np.exp(0.25 * a) * b)
close(gb, np.exp(0.25 * a).sum(0))
for f, inputs in ((cube, (a,)), (blend, (a, b))):
    pb.testing.gradcheck(f, tuple(pb.asarray(i) for i in inputs), order=2)

# A second registration and headers of another version are errors that leave the registry as it was.
for add, text in ((cube_ops.add_again, "registered already"), (cube_ops.add_stale, "another version of pullback")):
    try:
        add()
    except (ValueError, RuntimeError) as e:
        assert text in str(e) and "help: " in str(e)
    else:
        raise AssertionError(text)
assert not any(r["name"] == "stale" for r in pb.ops())
print("ok")
