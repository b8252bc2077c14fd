"""Whole training runs against PyTorch: same weights, same batches, same optimizer, step by step."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import pullback as pb  # noqa: E402
from pullback import nn  # noqa: E402
from pullback.cli.models import CharGPT  # noqa: E402

F = torch.nn.functional
VOCABULARY, CONTEXT, WIDTH, LAYERS, HEADS, BATCH = 65, 64, 128, 4, 4, 12


class TorchBlock(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1 = torch.nn.LayerNorm(WIDTH, bias=False)
        self.attention = torch.nn.Module()
        self.attention.qkv = torch.nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.attention.out = torch.nn.Linear(WIDTH, WIDTH, bias=False)
        self.norm2 = torch.nn.LayerNorm(WIDTH, bias=False)
        self.up = torch.nn.Linear(WIDTH, 4 * WIDTH, bias=False)
        self.down = torch.nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x):
        b, t, c = x.shape
        q, k, v = self.attention.qkv(self.norm1(x)).reshape(b, t, 3, HEADS, c // HEADS).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attention.out(y.permute(0, 2, 1, 3).reshape(b, t, c))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class TorchGPT(torch.nn.Module):
    """The twin of pullback.cli.models.CharGPT, names included."""

    def __init__(self):
        super().__init__()
        self.tokens = torch.nn.Embedding(VOCABULARY, WIDTH)
        self.places = torch.nn.Embedding(CONTEXT, WIDTH)
        self.blocks = torch.nn.ModuleList([TorchBlock() for _ in range(LAYERS)])
        self.norm = torch.nn.LayerNorm(WIDTH, bias=False)
        for p in self.parameters():
            if p.ndim == 2:
                torch.nn.init.normal_(p, std=0.02)

    def forward(self, codes):
        x = self.tokens(codes) + self.places(torch.arange(codes.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.norm(x) @ self.tokens.weight.T


def text_batches(steps, rng):
    """Codes of a random text in which each character depends on the two before it, and the codes that follow."""
    chances = rng.dirichlet(np.full(VOCABULARY, 0.05), size=(VOCABULARY, 8)).cumsum(-1)
    draws = rng.random((steps, BATCH, CONTEXT + 1))
    codes = np.zeros((steps, BATCH, CONTEXT + 1), dtype=np.int64)
    for i in range(2, CONTEXT + 1):
        rows = chances[codes[:, :, i - 1], codes[:, :, i - 2] % 8]
        codes[:, :, i] = np.minimum((draws[:, :, i, None] > rows).sum(-1), VOCABULARY - 1)
    return codes[:, :, :-1], codes[:, :, 1:]


def run_torch(model, optimizer, loss, batches):
    losses = []
    for x, y in batches:
        value = loss(model(torch.from_numpy(x)), torch.from_numpy(y))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return np.array(losses)


def run_ours(model, optimizer, loss, batches):
    losses = []
    for x, y in batches:
        value = loss(model(pb.asarray(x)), pb.asarray(y))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return np.array(losses)


def test_char_gpt_follows_torch():
    """Loss within 1e-4 of torch's for 20 steps; over 100 steps no further from torch's float64 loss than twice
    torch's own float32 loss is, and so for the worst step as for the root mean square."""
    torch.manual_seed(0)
    first = TorchGPT()
    weights = {name: p.detach().clone() for name, p in first.state_dict().items()}
    double = TorchGPT().double()
    double.load_state_dict(weights)
    ours = CharGPT(VOCABULARY, context=CONTEXT, layers=LAYERS, heads=HEADS, width=WIDTH)
    ours.load_state_dict(weights)
    xs, ys = text_batches(100, np.random.default_rng(0))
    batches = list(zip(xs, ys, strict=True))

    def torch_loss(logits, target):
        return F.cross_entropy(logits.reshape(-1, VOCABULARY), target.reshape(-1))

    def adamw(model):
        return torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)

    got = run_ours(
        ours,
        pb.optim.AdamW(ours.parameters(), lr=3e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01),
        pb.losses.cross_entropy,
        batches,
    )
    single = run_torch(first, adamw(first), torch_loss, batches)
    exact = run_torch(double, adamw(double), torch_loss, batches)
    assert exact[-1] < 0.9 * exact[0]  # it learns
    assert np.max(np.abs(got - single)[:20]) <= 1e-4
    ours_off, torch_off = np.abs(got - exact), np.abs(single - exact)
    assert np.max(ours_off) <= 2 * np.max(torch_off)
    assert np.sqrt(np.mean(ours_off**2)) <= 2 * np.sqrt(np.mean(torch_off**2))
