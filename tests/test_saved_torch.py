"""What the tape keeps never exceeds what PyTorch keeps, measured by its saved_tensors_hooks with unique storages."""

from itertools import pairwise

import numpy as np
import pytest

import pullback as pb
from pullback import nn

torch = pytest.importorskip("torch")
F = torch.nn.functional


def torch_kept(run, leaves):
    """Bytes of the distinct storages that the graph of run() keeps, without parameters."""
    seen = {}

    def pack(t):
        seen[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = run()
    for t in leaves:
        seen.pop(t.untyped_storage().data_ptr(), None)
    seen.pop(out.untyped_storage().data_ptr(), None)
    return sum(seen.values())


N, D = 48, 64


def pair(*shape, seed=0):
    a = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return pb.tensor(a, requires_grad=True), torch.tensor(a, requires_grad=True)


ACTS = {"gelu": F.gelu, "relu": F.relu, "tanh": torch.tanh, "silu": F.silu}
CONSUMERS = {
    "sum": (lambda y, w, x: y.sum(), lambda y, w, x: y.sum()),
    "linear": (lambda y, w, x: pb.linear(y, w).sum(), lambda y, w, x: F.linear(y, w).sum()),
    "dropout, linear": (
        lambda y, w, x: pb.linear(pb.dropout(y, 0.1), w).sum(),
        lambda y, w, x: F.linear(F.dropout(y, 0.1), w).sum(),
    ),
    "add, layer_norm": (
        lambda y, w, x: pb.layer_norm(x + y).sum(),
        lambda y, w, x: F.layer_norm(x + y, (D,)).sum(),
    ),
    "two": (
        lambda y, w, x: (pb.linear(y, w) + pb.linear(y, w * 2)).sum(),
        lambda y, w, x: (F.linear(y, w) + F.linear(y, w * 2)).sum(),
    ),
}


@pytest.mark.parametrize("saved", [None, "recompute"])
@pytest.mark.parametrize("consumer", list(CONSUMERS))
@pytest.mark.parametrize("act", list(ACTS))
def test_never_more_than_torch(act, consumer, saved):
    (h, th), (w, tw), (x, tx) = pair(N, D), pair(16, D, seed=1), pair(N, D, seed=2)
    ours = pb.memory.saved_bytes(CONSUMERS[consumer][0](getattr(pb, act)(h * 1, saved=saved), w, x))
    theirs = torch_kept(lambda: CONSUMERS[consumer][1](ACTS[act](th * 1), tw, tx), (th, tw, tx))
    assert ours <= theirs


@pytest.mark.parametrize("act", list(ACTS))
def test_in_place_after_an_activation(act):
    """y = f(h); y += 1: the gradient where PyTorch has one, GraphError where PyTorch has an error."""
    (h, th), (w, tw) = pair(N, D), pair(16, D, seed=1)
    y, ty = getattr(pb, act)(h * 1), ACTS[act](th * 1)
    y += 1
    ty += 1
    loss, theirs = pb.linear(y, w).sum(), F.linear(ty, tw).sum()
    try:
        theirs.backward()
    except RuntimeError:
        with pytest.raises(pb.GraphError, match="modified in place"):
            loss.backward()
        return
    loss.backward()
    np.testing.assert_allclose(h.grad.numpy(), th.grad.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(w.grad.numpy(), tw.grad.numpy(), rtol=1e-4, atol=1e-4)


def test_attention_of_half_floats_has_the_gradients_of_torch():
    """The blocked kernel in bfloat16: as close to float32 attention as PyTorch's own bfloat16."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((2, 4, 33, 16)).astype(np.float32) for _ in range(4)]

    def theirs(dtype):
        q, k, v = (torch.tensor(a).to(torch.bfloat16).to(dtype).requires_grad_() for a in arrays[:3])
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        out.backward(torch.tensor(arrays[3]).to(torch.bfloat16).to(dtype))
        return [t.float().detach().numpy() for t in (out, q.grad, k.grad, v.grad)]

    q, k, v = (pb.asarray(a).astype(pb.bfloat16) for a in arrays[:3])
    for t in (q, k, v):
        t.requires_grad = True
    out = pb.scaled_dot_product_attention(q, k, v, causal=True)
    assert out.dtype == pb.bfloat16
    out.backward(pb.asarray(arrays[3]).astype(pb.bfloat16))
    exact, near = theirs(torch.float32), theirs(torch.bfloat16)
    for have, want, rounded in zip((out, q.grad, k.grad, v.grad), exact, near, strict=True):
        err = np.abs(have.detach().astype(pb.float32).numpy() - want)
        assert np.max(err) <= max(1.5 * np.max(np.abs(rounded - want)), 2e-2)


def test_mlp_of_relu_and_dropout():
    sizes = [784, 1024, 1024, 10]
    layers, theirs = [], []
    for i, (a, b) in enumerate(pairwise(sizes)):
        layers.append(nn.Linear(a, b))
        theirs.append(torch.nn.Linear(a, b))
        if i < 2:
            layers += [nn.ReLU(), nn.Dropout(0.5)]
            theirs += [torch.nn.ReLU(), torch.nn.Dropout(0.5)]
    model, tmodel = nn.Sequential(*layers), torch.nn.Sequential(*theirs)
    x = np.random.default_rng(0).standard_normal((16, 784)).astype(np.float32)
    target = np.arange(16) % 10
    ours = pb.memory.saved_bytes(pb.losses.cross_entropy(model(pb.asarray(x)), pb.asarray(target)))
    other = torch_kept(
        lambda: F.cross_entropy(tmodel(torch.tensor(x)), torch.tensor(target)), list(tmodel.parameters())
    )
    assert ours == 16 * 11376 and ours < 0.45 * other
