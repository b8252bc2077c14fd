"""Whole training runs against PyTorch: same weights, same batches, same optimizer, step by step."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import pullback as pb  # noqa: E402
from pullback import nn  # noqa: E402
from pullback.cli.models import CharGPT  # noqa: E402

F = torch.nn.functional
VOCABULARY, CONTEXT, WIDTH, LAYERS, HEADS, BATCH = 65, 64, 128, 4, 4, 12


@pytest.fixture(autouse=True)
def _one_thread():
    """Small products; a machine under load waits for its second thread. No result depends on the thread count."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    pb.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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


def smooth_images(rng, n, size):
    """Images of ten classes, each a fixed random pattern under noise, and the classes."""
    patterns = rng.normal(size=(10, 1, size, size))
    y = rng.integers(0, 10, n)
    return (patterns[y] + rng.normal(size=(n, 1, size, size))).astype(np.float32), y


def torch_mlp():
    t = torch.nn
    return t.Sequential(t.Flatten(), t.Linear(784, 256), t.GELU(), t.Linear(256, 256), t.GELU(), t.Linear(256, 10))


def our_mlp():
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 256), nn.GELU(), nn.Linear(256, 256), nn.GELU(), nn.Linear(256, 10)
    )


def torch_cnn():
    t = torch.nn
    return t.Sequential(
        t.Conv2d(1, 16, 3, padding=1, bias=False), t.BatchNorm2d(16), t.ReLU(), t.MaxPool2d(2),
        t.Conv2d(16, 32, 3, stride=2, padding=1), t.ReLU(), t.AvgPool2d(2), t.Flatten(), t.Linear(32 * 9, 10),
    )  # fmt: skip


def our_cnn():
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(32 * 9, 10),
    )  # fmt: skip


OPTIMIZERS = {
    "sgd": (
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-4),
        lambda p: pb.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-4),
    ),
    "adamw": (
        lambda p: torch.optim.AdamW(p, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01),
        lambda p: pb.optim.AdamW(p, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01),
    ),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(("theirs", "ours"), [(torch_mlp, our_mlp), (torch_cnn, our_cnn)], ids=["mlp", "cnn"])
def test_small_models_follow_torch(theirs, ours, optimizer):
    """20 losses within 1e-4 of torch's and no further from its float64 run than twice torch's float32 run; then the
    parameters and the running statistics agree to 1e-5 of each tensor's norm."""
    torch.manual_seed(0)
    single = theirs()
    double = theirs().double()
    double.load_state_dict(single.state_dict())
    model = ours()
    model.load_state_dict({k: v.detach().clone() for k, v in single.state_dict().items()})
    x, y = smooth_images(np.random.default_rng(1), 20 * 32, 28 if theirs is torch_mlp else 24)
    batches = list(zip(np.split(x, 20), np.split(y, 20), strict=True))
    wide = [(a.astype(np.float64), b) for a, b in batches]
    make_theirs, make_ours = OPTIMIZERS[optimizer]
    got = run_ours(model, make_ours(model.parameters()), pb.losses.cross_entropy, batches)
    want = run_torch(single, make_theirs(single.parameters()), F.cross_entropy, batches)
    exact = run_torch(double, make_theirs(double.parameters()), F.cross_entropy, wide)
    assert exact[-1] < 0.95 * exact[0]  # it learns
    assert np.max(np.abs(got - want)) <= 1e-4
    assert np.max(np.abs(got - exact)) <= 2 * np.max(np.abs(want - exact))
    state = model.state_dict()
    assert list(state) == list(single.state_dict())
    for name, value in single.state_dict().items():
        off = np.linalg.norm(state[name].numpy().astype(np.float64) - value.numpy())
        assert off <= 1e-5 * np.linalg.norm(value.numpy().astype(np.float64)), name
