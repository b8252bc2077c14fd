"""Row 22: SAM equals the loop of two closures in torch."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import pullback as pb  # noqa: E402
from pullback import optim  # noqa: E402


def test_sam_equals_the_torch_loop():
    rng = np.random.default_rng(0)
    data, target = rng.normal(size=(32, 5)), rng.normal(size=32)
    start = [rng.normal(size=(8, 5)) / 2, rng.normal(size=8)]
    ours, theirs = [pb.tensor(p) for p in start], [torch.tensor(p, requires_grad=True) for p in start]
    for p in ours:
        p.requires_grad = True
    x, y = pb.tensor(data), pb.tensor(target)
    opt = optim.SAM(optim.SGD(ours, lr=0.01), rho=0.05)
    base = torch.optim.SGD(theirs, lr=0.01)

    def loss():
        base.zero_grad()
        error = torch.tanh(torch.tensor(data) @ theirs[0].T) @ theirs[1] - torch.tensor(target)
        value = (error**2).mean()
        value.backward()
        return value

    for _ in range(20):
        opt.step(lambda: ((pb.tanh(x @ ours[0].T) @ ours[1] - y) ** 2).mean())
        loss()
        with torch.no_grad():
            norm = torch.sqrt(sum((p.grad**2).sum() for p in theirs))
            moves = [0.05 * p.grad / (norm + 1e-12) for p in theirs]
            for p, m in zip(theirs, moves, strict=True):
                p += m
        loss()
        with torch.no_grad():
            for p, m in zip(theirs, moves, strict=True):
                p -= m
        base.step()
    for p, q in zip(ours, theirs, strict=True):
        assert np.max(np.abs(p.detach().numpy() - q.detach().numpy())) <= 1e-6
    assert np.max(np.abs(ours[0].detach().numpy() - start[0])) > 1e-3
