"""pb.autocast beside torch.autocast("cpu", torch.bfloat16): every op of the policy, gradients, a loss curve."""

import numpy as np
import pytest

import pullback as pb
from pullback import _core as C

torch = pytest.importorskip("torch")
F = torch.nn.functional


def numbers(*shape, seed=1):
    return np.random.default_rng(seed).uniform(0.1, 0.9, shape).astype(np.float32)


class Ours:
    lib = pb

    @staticmethod
    def tensor(x, kind):
        t = pb.tensor(x)
        return t.astype({"float32": pb.float32, "bfloat16": pb.bfloat16}[kind]) if t.dtype.is_floating else t


class Theirs:
    @staticmethod
    def tensor(x, kind):
        t = torch.tensor(x)
        return t.to(getattr(torch, kind)) if t.is_floating_point() else t


A, B, V = numbers(4, 4), numbers(4, 4, seed=2), numbers(4, seed=3)
T = np.array([0, 1, 2, 3])
IMAGE, KERNEL = numbers(2, 3, 6, 6), numbers(5, 3, 2, 2)
LINE, TAPS = numbers(2, 3, 6), numbers(5, 3, 2)
HEADS = [numbers(1, 2, 4, 8, seed=s) for s in (1, 2, 3)]
SIGN = np.array([1.0, -1.0, 1.0, 1.0], np.float32)
L = pb.losses

#: row of the table (None: ops without a row): (arguments, ours, theirs)
CASES = {
    "matmul": ([A, B], lambda a, b: a @ b, lambda a, b: a @ b),
    "matmul of a vector": ([A, V], pb.matmul, torch.matmul),
    "linear": ([A, B, V], pb.linear, F.linear),
    "_linear_act": ([A, B, V], lambda x, w, b: pb.linear_act(x, w, b, "relu"), lambda *a: F.relu(F.linear(*a))),
    "vecdot": ([A, B], pb.vecdot, torch.linalg.vecdot),
    "einsum": ([A, B], lambda a, b: pb.einsum("ij,jk->ik", a, b), lambda a, b: torch.einsum("ij,jk->ik", a, b)),
    "tensordot": ([A, B], lambda a, b: pb.tensordot(a, b, axes=1), lambda a, b: torch.tensordot(a, b, 1)),
    "conv1d": ([LINE, TAPS], pb.conv1d, F.conv1d),
    "conv2d": ([IMAGE, KERNEL], pb.conv2d, F.conv2d),
    "conv_transpose2d": ([IMAGE, KERNEL.transpose(1, 0, 2, 3).copy()], pb.conv_transpose2d, F.conv_transpose2d),
    "scaled_dot_product_attention": (HEADS, pb.scaled_dot_product_attention, F.scaled_dot_product_attention),
    "prelu": ([A], lambda x: pb.nn.PReLU()(x), lambda x: torch.nn.PReLU()(x)),
    "prod": ([A], pb.prod, torch.prod),
    "_pad_by_index": ([A[None]], lambda x: pb.pad(x, [(0, 0), (0, 0), (1, 1)], mode="reflect"),
                      lambda x: F.pad(x, (1, 1), mode="reflect")),
    "_cross_entropy": ([A, T], L.cross_entropy, F.cross_entropy),
    "_nll": ([A, T], L.nll, F.nll_loss),
    "_linear_cross_entropy": ([A, B, T], pb.linear_cross_entropy, lambda x, w, t: F.cross_entropy(F.linear(x, w), t)),
    "_squared_error": ([A, B], L.mse, F.mse_loss),
    "_absolute_error": ([A, B], L.l1, F.l1_loss),
    "_huber": ([A, B], L.huber, F.huber_loss),
    "_smooth_l1": ([A, B], L.smooth_l1, F.smooth_l1_loss),
    "_kl_div": (
        [A, B],
        lambda a, b: L.kl_div(a, b, reduction="sum"),
        lambda a, b: F.kl_div(a, b, reduction="sum"),
    ),
    "losses.kl_div": ([A, B], lambda a, b: L.kl_div(a, b, log_target=True, reduction="sum"),
                      lambda a, b: F.kl_div(a, b, log_target=True, reduction="sum")),
    "_bce_with_logits": ([A, B], L.bce_with_logits, F.binary_cross_entropy_with_logits),
    "losses.bce_with_logits": ([A, B, V], lambda a, b, w: L.bce_with_logits(a, b, pos_weight=w),
                               lambda a, b, w: F.binary_cross_entropy_with_logits(a, b, pos_weight=w)),
    "losses.hinge": ([V, SIGN], L.hinge, lambda s, y: F.margin_ranking_loss(s, torch.zeros(4), y, margin=1.0)),
    "losses.cosine_embedding": ([A, B, SIGN], L.cosine_embedding, F.cosine_embedding_loss),
    "concat": ([A, B], lambda a, b: pb.concat([a, b]), lambda a, b: torch.cat([a, b])),
    "stack": ([A, B], lambda a, b: pb.stack([a, b]), lambda a, b: torch.stack([a, b])),
    "scatter_add": ([A, B], lambda a, b: pb.scatter_add(a, pb.zeros((4, 4), dtype=pb.int64), b, axis=0),
                    lambda a, b: a.scatter_add(0, torch.zeros(4, 4, dtype=torch.long), b.to(a.dtype))),
}  # fmt: skip


def element_wise(name, *more):
    ours, theirs = getattr(pb, name), getattr(torch, name)
    return [A], lambda x: ours(x, *more), lambda x: theirs(x, *more)


for _name in ("acos", "asin", "cosh", "exp", "expm1", "log", "log10", "log1p", "log2", "square", "reciprocal", "rsqrt",
              "sinh", "tan", "sqrt", "tanh", "sigmoid", "relu", "sum", "mean"):  # fmt: skip
    CASES[_name] = element_wise(_name)
CASES |= {
    "logsumexp": element_wise("logsumexp", 0),
    "pow": ([A], lambda x: x**3, lambda x: x**3),
    "softplus": ([A], pb.softplus, F.softplus),
    "layer_norm": ([A], pb.layer_norm, lambda x: F.layer_norm(x, (4,))),
    "rms_norm": ([A], pb.rms_norm, lambda x: F.rms_norm(x, (4,))),
    "group_norm": ([A], lambda x: pb.group_norm(x, 2), lambda x: F.group_norm(x, 2)),
    "norm": ([A], pb.norm, torch.linalg.vector_norm),
    "softmax": ([A], pb.softmax, lambda x: torch.softmax(x, -1)),
    "log_softmax": ([A], pb.log_softmax, lambda x: torch.log_softmax(x, -1)),
    "cumulative_sum": ([A], lambda x: pb.cumulative_sum(x, axis=0), lambda x: torch.cumsum(x, 0)),
    "max_pool2d": ([IMAGE], lambda x: pb.max_pool2d(x, 2), lambda x: F.max_pool2d(x, 2)),
    "avg_pool2d": ([IMAGE], lambda x: pb.avg_pool2d(x, 2), lambda x: F.avg_pool2d(x, 2)),
    "add": ([A, B], lambda a, b: a + b, lambda a, b: a + b),
    "where": ([A, B], lambda a, b: pb.where(a > 0.5, a, b), lambda a, b: torch.where(a > 0.5, a, b)),
    "gelu": ([A], pb.gelu, F.gelu),
}


def test_every_row_of_the_table_is_compared():
    assert {row["op"] for row in C._autocast_table()} <= CASES.keys()


@pytest.mark.parametrize("name", CASES)
def test_result_dtypes(name):
    """The first argument in either type, the others in float32."""
    arguments, ours, theirs = CASES[name]
    for kind in ("float32", "bfloat16"):
        rest = kind if name == "tensordot" else "float32"  # theirs takes one type only
        kinds = [kind] + [rest] * (len(arguments) - 1)
        with pb.autocast("bfloat16"):
            got = ours(*(Ours.tensor(x, k) for x, k in zip(arguments, kinds, strict=True)))
        with torch.autocast("cpu", torch.bfloat16):
            expected = theirs(*(Theirs.tensor(x, k) for x, k in zip(arguments, kinds, strict=True)))
        assert got.dtype.name == str(expected.dtype).removeprefix("torch."), kind
        # Same arithmetic, so the same to two roundings to 8 bits.
        np.testing.assert_allclose(
            got.detach().astype(pb.float32).numpy(),
            expected.detach().float().numpy(),
            rtol=2**-6,
            atol=2**-6,
            err_msg=kind,
        )


@pytest.mark.parametrize("name", CASES)
def test_gradients_have_the_dtypes_of_their_inputs(name):
    arguments, ours, theirs = CASES[name]
    mine = [pb.tensor(x) for x in arguments]
    other = [torch.tensor(x) for x in arguments]
    differentiable = 1 if name == "losses.bce_with_logits" else len(mine)  # theirs knows none of pos_weight
    for m, o in zip(mine[:differentiable], other, strict=False):
        if m.dtype.is_floating:
            m.requires_grad = True
            o.requires_grad_(True)
    with pb.autocast("bfloat16"):
        got = ours(*mine)
    with torch.autocast("cpu", torch.bfloat16):
        expected = theirs(*other)
    got.astype(pb.float32).sum().backward()
    expected.float().sum().backward()
    for m, o in zip(mine, other, strict=True):
        if o.grad is None:
            assert m.grad is None
            continue
        assert m.grad.dtype == pb.float32 and o.grad.dtype == torch.float32
        scale = max(1.0, float(o.grad.abs().max()))
        np.testing.assert_allclose(m.grad.numpy(), o.grad.numpy(), rtol=2**-5, atol=2**-6 * scale)


def test_a_loss_curve():
    """Twenty AdamW steps of a small network from the same start.

    A product rounds each output once, to 2^-9 of its size, and each weight and input once: three layers give at most
    about 9 such errors in the logits. Two such runs differ by the accumulated effect on the loss, of which we allow
    2^-9 * 9 * 2 = 3.5 % of the loss at the start.
    """
    draw = np.random.default_rng(4)
    shapes = [(32, 16), (32,), (32, 32), (32,), (5, 32), (5,)]
    start = [(draw.standard_normal(s) * 0.3).astype(np.float32) for s in shapes]
    x, y = draw.standard_normal((64, 16)).astype(np.float32), draw.integers(0, 5, 64)

    def run(params, optimizer, linear, act, loss, cast, x, y):
        losses = []
        for _ in range(20):
            optimizer.zero_grad()
            with cast():
                h = act(linear(x, params[0], params[1]))
                h = act(linear(h, params[2], params[3]))
                value = loss(linear(h, params[4], params[5]), y)
            value.backward()
            optimizer.step()
            losses.append(value.item())
        return np.array(losses)

    mine = [pb.tensor(p, requires_grad=True) for p in start]
    ours = run(mine, pb.optim.AdamW(mine, lr=1e-2), pb.linear, pb.gelu, L.cross_entropy,
               lambda: pb.autocast("bfloat16"), pb.tensor(x), pb.tensor(y))  # fmt: skip
    other = [torch.tensor(p, requires_grad=True) for p in start]
    theirs = run(other, torch.optim.AdamW(other, lr=1e-2), F.linear, F.gelu, F.cross_entropy,
                 lambda: torch.autocast("cpu", torch.bfloat16), torch.tensor(x), torch.tensor(y))  # fmt: skip
    exact = [torch.tensor(p, requires_grad=True) for p in start]
    plain = run(exact, torch.optim.AdamW(exact, lr=1e-2), F.linear, F.gelu, F.cross_entropy,
                lambda: torch.autocast("cpu", enabled=False), torch.tensor(x), torch.tensor(y))  # fmt: skip
    bound = 2**-9 * 9 * 2 * plain[0]
    assert plain[-1] < 0.7 * plain[0] and np.all(np.isfinite(ours))
    assert np.max(np.abs(ours - theirs)) <= bound and np.max(np.abs(ours - plain)) <= bound
    assert not np.array_equal(ours, plain)
