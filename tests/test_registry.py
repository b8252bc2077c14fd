"""Every row of the registry outside Map and Reduce: values, layouts, and derivatives of both modes and two orders."""

import numpy as np
import pullback as pb
import pytest
import refs_rows as refs

ROWS = {r["name"]: r for r in pb.ops() if r["family"] not in ("Map", "Reduce")}
CASES = [(name, i) for name, samples in refs.OTHER.items() for i in range(len(samples))]
IDS = [f"{name}-{i}" for name, i in CASES]
SMOOTH = [c for c in CASES if c[0] in ROWS and ROWS[c[0]]["derivative"] == "pull"]
SMOOTH_IDS = [f"{name}-{i}" for name, i in SMOOTH]
#: Rows that move elements and compute nothing: 16-bit results are exact.
MOVES = {*refs.VIEW, *refs.INDEX} - {"scatter_add"}


def op_of(name):
    home, _, last = name.rpartition(".")
    return getattr(getattr(pb, home) if home else pb, last)


def is_float(a):
    return a.dtype == np.float64


def outputs(y):
    return list(y) if isinstance(y, (tuple, list)) else [y]


def run(name, i, tensors):
    return outputs(refs.OTHER[name][i].call(op_of(name), *tensors))


def check(got, want, tol):
    got, want = got.numpy().astype(np.float64), np.asarray(want, dtype=np.float64)
    assert got.shape == want.shape
    scale = max(1.0, float(np.max(np.abs(want), initial=0.0, where=np.isfinite(want))))
    with np.errstate(invalid="ignore"):
        same = (got == want) | (np.isnan(got) & np.isnan(want)) | (np.abs(got - want) <= tol * scale)
    assert same.all(), f"max error {np.nanmax(np.abs(got - want), initial=0.0)}"


def compare(name, i, tensors, arrays, tol):
    got, want = run(name, i, tensors), outputs(refs.OTHER[name][i].want(*arrays))
    assert len(got) == len(want)
    for g, w in zip(got, want, strict=True):
        check(g, w, tol)
    return got


def leaves(arrays, dtype=np.float64):
    return [pb.tensor(a.astype(dtype), requires_grad=True) if is_float(a) else pb.asarray(a) for a in arrays]


def weights(ys, dtype=pb.float64):
    """Cotangents without symmetry."""
    return [pb.asarray(np.cos(1.3 * np.arange(y.size) + 0.4).reshape(y.shape)).astype(dtype) for y in ys]


def total(ys):
    ys = [y for y in ys if y.dtype.is_floating]
    return sum(
        ((y * w).sum() for y, w in zip(ys, weights(ys, ys[0].dtype), strict=True)), pb.zeros((), dtype=ys[0].dtype)
    )


def test_every_row_has_a_sample_and_a_reference():
    names = [r["name"] for r in pb.ops()]
    assert len(names) == len(set(names)), "a row is listed twice"
    missing = sorted(set(ROWS) - set(refs.OTHER))
    assert not missing, f"tests/refs_rows.py has no reference for {missing}"
    assert not set(refs.OTHER) - set(ROWS), "a reference has no row"


def test_every_row_is_a_documented_public_function():
    for name, row in ROWS.items():
        f = op_of(name)
        assert callable(f) and f.__doc__, name
        assert row["signature"].startswith(name.rpartition(".")[2] + "("), name
        assert row["family"] in ("Row", "Linear", "View", "Custom") and row["derivative"] in ("pull", "zero", "none"), (
            name
        )


@pytest.mark.parametrize("name,i", CASES, ids=IDS)
@pytest.mark.parametrize("dtype,tol", [("float64", 1e-13), ("float32", 2e-6)])
def test_forward(name, i, dtype, tol):
    arrays = refs.OTHER[name][i].arrays
    if dtype == "float32" and not refs.OTHER[name][i].single:
        dtype, tol = "float64", 1e-13
    got = compare(name, i, [pb.asarray(a.astype(dtype) if is_float(a) else a) for a in arrays], arrays, tol)
    for y in got:
        assert name == "astype" or not y.dtype.is_floating or y.dtype == getattr(pb, dtype)


def layouts(a):
    """The same values in Fortran order, from a reversed buffer, and from every second element."""
    yield pb.asarray(np.array(a, order="F"))
    if a.ndim:
        yield pb.asarray(a[::-1].copy())[::-1]
        wide = np.zeros((*a.shape[:-1], 2 * a.shape[-1]), a.dtype)
        wide[..., ::2] = a
        yield pb.asarray(wide)[..., ::2]


@pytest.mark.parametrize("name,i", CASES, ids=IDS)
def test_layouts(name, i):
    arrays = refs.OTHER[name][i].arrays
    for tensors in zip(*[(list(layouts(a)) * 3)[:3] for a in arrays], strict=True):
        compare(name, i, tensors, arrays, 1e-13)
        if not any(is_float(a) for a in arrays) or ROWS[name]["derivative"] != "pull":
            continue
        plain = leaves(arrays)
        odd = [t.detach().requires_grad_() if is_float(a) else t for t, a in zip(tensors, arrays, strict=True)]
        total(run(name, i, plain)).backward()
        total(run(name, i, odd)).backward()
        for p, o, a in zip(plain, odd, arrays, strict=True):
            if is_float(a) and p.grad is not None:
                check(o.grad, p.grad.numpy(), 1e-13)


@pytest.mark.parametrize("name,i", [c for c in CASES if refs.OTHER[c[0]][c[1]].batch])
def test_empty(name, i):
    s = refs.OTHER[name][i]
    arrays = [a[:0] if j in s.batch else a for j, a in enumerate(s.arrays)]
    if name in ("meshgrid", "matmul") and i == 2:
        arrays = [a[:0] for a in s.arrays]
    with np.errstate(all="ignore"):
        compare(name, i, [pb.asarray(a) for a in arrays], arrays, 1e-13)
    if ROWS[name]["derivative"] == "pull":
        xs = leaves(arrays)
        total(run(name, i, xs)).backward()
        for x in xs:
            assert x.grad is None or x.grad.shape == x.shape
            assert x.grad is None or not np.isnan(x.grad.numpy()).any()


@pytest.mark.parametrize("name,i", [c for c in CASES if refs.OTHER[c[0]][c[1]].nan])
def test_nan(name, i):
    """A NaN in the first or the last element of the first array comes out where NumPy has it."""
    s, seen = refs.OTHER[name][i], False
    for place in (0, -1):
        arrays = [s.arrays[0].copy(), *s.arrays[1:]]
        arrays[0].flat[place] = np.nan
        with np.errstate(all="ignore"):
            want = outputs(s.want(*arrays))
        seen = seen or any(np.isnan(w).any() for w in want) or ROWS[name]["derivative"] == "none"
        compare(name, i, [pb.asarray(a) for a in arrays], arrays, 1e-13)
        if s.single:
            compare(name, i, [pb.asarray(a.astype(np.float32) if is_float(a) else a) for a in arrays], arrays, 2e-6)
    assert seen


@pytest.mark.parametrize("name,i", [c for c in CASES if refs.OTHER[c[0]][c[1]].half])
@pytest.mark.parametrize("dtype", [pb.bfloat16, pb.float16], ids=str)
def test_half_types(name, i, dtype):
    """Results are those of float32, rounded (compositions round once per step)."""
    arrays = refs.OTHER[name][i].arrays
    narrow = [pb.asarray(a).astype(dtype) if is_float(a) else pb.asarray(a) for a in arrays]
    wide = [t.astype(pb.float32) if t.dtype == dtype else t for t in narrow]
    got, want = run(name, i, narrow), run(name, i, wide)
    for g, w in zip(got, want, strict=True):
        assert name == "astype" or g.dtype == (dtype if w.dtype.is_floating else w.dtype)
        if name in MOVES:
            assert g.astype(pb.float32).tolist() == w.astype(pb.float32).tolist()
        else:
            check(g.astype(pb.float32), w.numpy(), 0.02 if dtype == pb.bfloat16 else 0.0025)
    if ROWS[name]["derivative"] != "pull":
        return
    narrow, wide = ([t.requires_grad_() if t.dtype.is_floating else t for t in ts] for ts in (narrow, wide))
    total(run(name, i, narrow)).backward()
    total(run(name, i, wide)).backward()
    for n, w in zip(narrow, wide, strict=True):
        if n.dtype.is_floating and w.grad is not None:
            assert n.grad.dtype == dtype
            check(n.grad.astype(pb.float32), w.grad.numpy(), 0.04 if dtype == pb.bfloat16 else 0.005)


@pytest.mark.parametrize("name,i", SMOOTH, ids=SMOOTH_IDS)
def test_pull_and_push_against_differences(name, i):
    """The Jacobian of reverse and of forward mode, entry by entry."""
    pb.testing.gradcheck(lambda *xs: run(name, i, xs), [pb.asarray(a) for a in refs.OTHER[name][i].arrays])


@pytest.mark.parametrize("name,i", SMOOTH, ids=SMOOTH_IDS)
@pytest.mark.parametrize("dtype,tol", [(np.float64, 1e-12), (np.float32, 1e-5)])
def test_fused_pull_equals_graph_pull(name, i, dtype, tol):
    arrays = refs.OTHER[name][i].arrays
    fused, graph = leaves(arrays, dtype), leaves(arrays, dtype)
    total(run(name, i, fused)).backward()
    total(run(name, i, graph)).backward(create_graph=True)
    reached = 0
    for f, g in zip(fused, graph, strict=True):
        assert (f.grad is None) == (g.grad is None)
        if f.grad is not None:
            check(f.grad, g.grad.detach().numpy(), tol)
            reached += 1
    assert reached


def directions(xs, seed):
    return [pb.asarray(np.random.default_rng(seed + j).normal(size=x.shape)) for j, x in enumerate(xs)]


@pytest.mark.parametrize("name,i", SMOOTH, ids=SMOOTH_IDS)
def test_forward_mode_is_the_transpose(name, i):
    """<w, J v> == <J' w, v>."""
    arrays = refs.OTHER[name][i].arrays
    at = [j for j, a in enumerate(arrays) if is_float(a)]
    every = [pb.asarray(a) for a in arrays]

    def f(*xs):
        full = list(every)
        for j, x in zip(at, xs, strict=True):
            full[j] = x
        return [y for y in run(name, i, full) if y.dtype.is_floating]

    xs = tuple(every[j] for j in at)
    vs = tuple(directions(xs, 3))
    ys, ts = pb.jvp(f, xs, vs)
    _, pull = pb.vjp(f, *xs)
    ws = weights(ys)
    left = sum((t * w).sum().item() for t, w in zip(ts, ws, strict=True))
    right = sum((g * v).sum().item() for g, v in zip(pull(ws), vs, strict=True))
    assert abs(left - right) <= 1e-12 * (1 + abs(left))


@pytest.mark.parametrize("name,i", SMOOTH, ids=SMOOTH_IDS)
def test_second_order(name, i):
    """d/dt <u, gradient(x + t v)>: by reverse over reverse, by forward over reverse and by a central difference.

    The outputs are squared first, so that linear ops have a second derivative too.
    """
    arrays = refs.OTHER[name][i].arrays
    at = [j for j, a in enumerate(arrays) if is_float(a)]
    every = [pb.asarray(a) for a in arrays]

    def gradient(*xs):
        full = list(every)
        for j, x in zip(at, xs, strict=True):
            full[j] = x
        ys = [y for y in run(name, i, full) if y.dtype.is_floating]
        gs = pb.gradients(total([y * y for y in ys]), xs, create_graph=True)
        return sum((g * u).sum() for g, u in zip(gs, directions(xs, 5), strict=True))

    xs = [every[j].detach().clone().requires_grad_() for j in at]
    vs = directions(xs, 9)
    reverse = sum((g * v).sum().item() for g, v in zip(pb.gradients(gradient(*xs), xs), vs, strict=True))
    h = 1e-5
    ends = [
        gradient(*[(x.detach() + s * h * v).requires_grad_() for x, v in zip(xs, vs, strict=True)]).item()
        for s in (1, -1)
    ]
    want = (ends[0] - ends[1]) / (2 * h)
    assert abs(reverse - want) <= 1e-6 * (1 + abs(want))

    def scalar(*xs):
        full = list(every)
        for j, x in zip(at, xs, strict=True):
            full[j] = x
        ys = [y for y in run(name, i, full) if y.dtype.is_floating]
        return total([y * y for y in ys])

    products = pb.hvp(scalar, tuple(x.detach() for x in xs), tuple(vs))
    forward = sum((p * u).sum().item() for p, u in zip(products, directions(xs, 5), strict=True))
    assert abs(forward - want) <= 1e-6 * (1 + abs(want))


def test_stop_gradient_stops_both_modes():
    x = pb.tensor([2.0, 3.0], dtype=pb.float64)
    y, t = pb.jvp(lambda x: x * pb.stop_gradient(x), (x,), (pb.ones_like(x),))
    assert y.tolist() == [4.0, 9.0] and t.tolist() == [2.0, 3.0]
    assert pb.grad(lambda x: (x * pb.stop_gradient(x)).sum())(x).tolist() == [2.0, 3.0]


def test_unstack_is_one_op_whose_parts_are_copies():
    x = pb.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    a, b = pb.unstack(x)
    (a * 2 + b * 0).sum().backward()
    assert x.grad.tolist() == [[2.0, 2.0], [0.0, 0.0]]


def test_split_takes_positions_from_the_end():
    assert [p.tolist() for p in pb.split(pb.arange(5), [-2])] == [[0, 1, 2], [3, 4]]
    assert [p.tolist() for p in pb.split(pb.arange(3), [2, 9])] == [[0, 1], [2], []]
