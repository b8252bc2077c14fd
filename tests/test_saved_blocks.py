"""Bytes kept for backward, by hand count: small compositions, a GPT-2 block, a Llama block and an MLP."""

import pytest

import pullback as pb
from pullback import nn

N, D, OUT = 48, 64, 16  # rows, width, outputs of the product
F = N * D * 4  # one float32 activation
SIDE = (N * D + 31) // 32 * 4  # one bit per element
STATS = 2 * N * 4  # mean and 1 / deviation of LayerNorm

#: bytes kept: activation -> consumer -> by saved = None, "output", "recompute". The input h of the activation has a
#: node; what is counted: h, y = act(h), z = what the consumer reads.
TABLE = {
    "gelu": {
        "sum": (F, F + SIDE, F),
        "linear": (2 * F, F + SIDE, F),
        "dropout, linear": (2 * F, 2 * F + SIDE, 2 * F),
        "add, layer_norm": (2 * F + STATS, 2 * F + SIDE + STATS, 2 * F + STATS),
        "two": (2 * F, F + SIDE, F),
    },
    "silu": {
        "sum": (F, F + SIDE, F),
        "linear": (2 * F, F + SIDE, F),
        "dropout, linear": (2 * F, 2 * F + SIDE, 2 * F),
        "add, layer_norm": (2 * F + STATS, 2 * F + SIDE + STATS, 2 * F + STATS),
        "two": (2 * F, F + SIDE, F),
    },
    "relu": {
        "sum": (F, F, F),
        "linear": (F, F, F),
        "dropout, linear": (F, F, 2 * F),
        "add, layer_norm": (2 * F + STATS, 2 * F + STATS, 2 * F + STATS),
        "two": (F, F, F),
    },
    "tanh": {
        "sum": (F, F, F),
        "linear": (F, F, F),
        "dropout, linear": (2 * F, 2 * F, 2 * F),
        "add, layer_norm": (2 * F + STATS, 2 * F + STATS, 2 * F + STATS),
        "two": (F, F, F),
    },
}


def weight(*shape):
    w = pb.random.normal(shape) * 0.1
    return pb.tensor(w.numpy(), requires_grad=True)


def consumers():
    w, w2 = weight(OUT, D), weight(OUT, D)
    return {
        "sum": lambda h, y: y.sum(),
        "linear": lambda h, y: pb.linear(y, w).sum(),
        "dropout, linear": lambda h, y: pb.linear(pb.dropout(y, 0.1), w).sum(),
        "add, layer_norm": lambda h, y: pb.layer_norm(weight(N, D) * 1 + y).sum(),
        "two": lambda h, y: (pb.linear(y, w) + pb.linear(y, w2)).sum(),
    }


@pytest.mark.parametrize("holding", [False, True])
@pytest.mark.parametrize("consumer", ["sum", "linear", "dropout, linear", "add, layer_norm", "two"])
@pytest.mark.parametrize("act", list(TABLE))
def test_table(act, consumer, holding):
    """Also with the user still holding x or y: what the graph holds does not depend on it."""
    got, kept = [], []
    for saved in (None, "output", "recompute"):
        h = weight(N, D) * 1
        y = getattr(pb, act)(h, saved=saved)
        loss = consumers()[consumer](h, y)
        if holding:
            kept.append((h, y))
        del h, y
        got.append(pb.memory.saved_bytes(loss))
        loss.backward()
    assert tuple(got) == TABLE[act][consumer]


def half(module):
    return module.to(pb.bfloat16)


class GPT2Block(nn.Module):
    def __init__(self, d=768, heads=12, p=0.1, saved=None):
        self.heads = heads
        self.ln1, self.ln2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.up, self.down = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)
        self.act, self.drop = nn.GELU(saved=saved), nn.Dropout(p)

    def attend(self, x):
        b, t, d = x.shape
        parts = pb.split(self.qkv(x), 3, axis=-1)
        q, k, v = (pb.moveaxis(p.reshape(b, t, self.heads, d // self.heads), 1, 2) for p in parts)
        a = pb.scaled_dot_product_attention(q, k, v, causal=True)
        return self.out(pb.moveaxis(a, 1, 2).reshape(b, t, d))

    def forward(self, x):
        x = x + self.drop(self.attend(self.ln1(x)))
        return x + self.drop(self.down(self.act(self.up(self.ln2(x)))))


class LlamaBlock(nn.Module):
    def __init__(self, d=768, heads=12, hidden=2048):
        self.heads = heads
        self.n1, self.n2 = nn.RMSNorm(d), nn.RMSNorm(d)
        self.q, self.k, self.v, self.o = (nn.Linear(d, d, bias=False) for _ in range(4))
        self.gate, self.up = nn.Linear(d, hidden, bias=False), nn.Linear(d, hidden, bias=False)
        self.down = nn.Linear(hidden, d, bias=False)

    def forward(self, x):
        b, t, d = x.shape
        h = self.n1(x)
        q, k, v = (pb.moveaxis(f(h).reshape(b, t, self.heads, d // self.heads), 1, 2) for f in (self.q, self.k, self.v))
        a = pb.scaled_dot_product_attention(q, k, v, causal=True)
        x = x + self.o(pb.moveaxis(a, 1, 2).reshape(b, t, d))
        h = self.n2(x)
        return x + self.down(pb.silu_mul(self.gate(h), self.up(h)))


def per_width(model, d=768, tokens=64):
    x = pb.random.normal((1, tokens, d)).astype(pb.bfloat16)
    loss = half(model)(x).sum()
    kept = pb.memory.saved_bytes(loss) / (tokens * d)
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    return kept


@pytest.mark.parametrize(("saved", "bound"), [("recompute", 20.1), ("output", 20.6), (None, 28.1)])
def test_gpt2_block(saved, bound):
    """norms 4 + q, k, v, o, lse 8.06 + gelu 8; in bfloat16, per token and width."""
    assert per_width(GPT2Block(saved=saved)) <= bound


def test_llama_block():
    assert per_width(LlamaBlock()) <= 22.8


def test_mlp():
    """784 x 4 of the batch, 1024 x 4 twice, 10 x 4 of the loss, 8 of the target; per sample in float32."""
    layers = [nn.Linear(784, 1024), nn.ReLU(), nn.Dropout(0.5), nn.Linear(1024, 1024), nn.ReLU(), nn.Dropout(0.5)]
    model = nn.Sequential(*layers, nn.Linear(1024, 10))
    x, target = pb.random.normal((32, 784)), pb.asarray([i % 10 for i in range(32)])
    loss = pb.losses.cross_entropy(model(x), target)
    assert pb.memory.saved_bytes(loss) == 32 * 11376
    loss.backward()
