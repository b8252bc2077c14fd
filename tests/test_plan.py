"""pb.memory.plan: budgets are kept, errors come as predicted, exact forms go first; Trainer(saved=, memory_budget=)."""

import numpy as np
import pytest

import pullback as pb
from pullback import nn
from pullback.train import Trainer

WIDTH, TOKENS = 64, 256


class Block(nn.Module):
    """A GPT-2 block, small."""

    def __init__(self):
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.act, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH)
        self.drop = nn.Dropout(0.1)

    def forward(self, x):
        q, k, v = (
            pb.permute_dims(pb.reshape(part, (-1, 64, 4, WIDTH // 4)), (0, 2, 1, 3))
            for part in pb.split(self.qkv(self.norm1(x)), 3, axis=-1)
        )
        a = pb.scaled_dot_product_attention(q, k, v, causal=True)
        x = x + self.drop(self.out(pb.reshape(pb.permute_dims(a, (0, 2, 1, 3)), x.shape)))
        return x + self.drop(self.down(self.act(self.up(self.norm2(x)))))


@pytest.fixture(scope="module")
def case():
    pb.manual_seed(5)
    model = nn.Sequential(nn.Linear(32, WIDTH), Block(), Block(), nn.Linear(WIDTH, 32))
    x = pb.random.normal((TOKENS // 64, 64, 32))
    y = pb.random.normal((TOKENS // 64, 64, 32))
    return model, x, y


def loss_of(prediction, target):
    return pb.mean((prediction - target) ** 2)


def gradient(model, x, y, plan=None):
    """The gradient of all parameters, always with the same dropout; and the bytes kept."""
    pb.manual_seed(9)
    if plan is None:
        loss = loss_of(model(x), y)
    else:
        with pb.memory.policy(plan):
            loss = loss_of(model(x), y)
    kept = pb.memory.saved_bytes(loss)
    grads = pb.gradients(loss, list(model.parameters()))
    return np.concatenate([g.numpy().ravel() for g in grads]).astype(np.float64), kept


def test_five_budgets(case):
    """Kept as planned and within the budget; the error that comes within a factor 2 of the predicted one."""
    model, x, y = case
    exact, default = gradient(model, x, y)
    with pytest.raises(ValueError, match=r"is below the least possible, \d+ bytes") as info:
        pb.memory.plan(model, (x, y), budget_bytes=1, loss=loss_of)
    least = int(str(info.value).split("least possible, ")[1].split()[0])
    assert least < 0.6 * default
    errors = []
    for share in (0.05, 0.25, 0.5, 0.75, 1.0):
        budget = int(least + share * (default - least))
        plan = pb.memory.plan(model, (x, y), budget_bytes=budget, loss=loss_of)
        found, kept = gradient(model, x, y, plan)
        assert kept == plan.bytes <= budget
        assert plan.default_bytes == default
        error = np.linalg.norm(found - exact) / np.linalg.norm(exact)
        if plan.error == 0:
            assert error <= 1e-5
        else:
            assert 0.5 * plan.error <= error <= 2 * plan.error
        errors.append(plan.error)
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0 == errors[-1]


def test_exact_forms_go_first(case):
    """Where recomputation fits the budget, no code is chosen."""
    model, x, y = case
    _, default = gradient(model, x, y)
    with pb.saving("recompute"):
        pb.manual_seed(9)
        recomputed = pb.memory.saved_bytes(loss_of(model(x), y))
    assert recomputed < default
    plan = pb.memory.plan(model, (x, y), budget_bytes=recomputed, loss=loss_of)
    assert plan.error == 0 and plan.bytes <= recomputed
    assert {row.saved for row in plan.rows} <= {None, "recompute", "output"}


def test_what_says_more_goes_before(case):
    """A module's own saved= is left alone, and a call's and pb.saving's go before the policy."""
    model = nn.Sequential(nn.Linear(32, 2048), nn.GELU(), nn.Linear(2048, 8), nn.GELU(saved="input"))
    x = pb.random.normal((64, 32))
    plan = pb.memory.plan(model, (x, pb.zeros((64, 8))), budget_bytes=100_000, loss=loss_of)
    assert [row.name for row in plan.rows] == ["1", ""]
    assert plan.error > 0
    with pb.memory.policy(plan), pb.saving("input"):
        inner = pb.memory.saved_bytes(pb.sum(model[1](pb.ones((64, 2048)).requires_grad_() * 1.0)))
    assert inner == 64 * 2048 * 4
    text = str(plan)
    assert "GELU" in text and f"{plan.bytes:,} bytes of {plan.default_bytes:,}" in text


def test_the_probe_leaves_no_trace(case):
    model = nn.Sequential(nn.Linear(32, 64), nn.BatchNorm1d(64), nn.GELU(), nn.Linear(64, 8))
    x, y = pb.random.normal((64, 32)), pb.zeros((64, 8))
    before = {name: t.numpy().copy() for name, t in model.state_dict().items()}
    state = pb.random.default_generator().get_state()
    pb.memory.plan(model, (x, y), budget_bytes=40_000, loss=loss_of)
    assert pb.random.default_generator().get_state() == state
    assert all(np.array_equal(t.numpy(), before[name]) for name, t in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def train(tmp_path=None, **keywords):
    pb.manual_seed(3)
    model = nn.Sequential(nn.Linear(16, 256), nn.GELU(), nn.Linear(256, 4))
    x = pb.random.normal((96, 16))
    data = pb.data.DataLoader(pb.data.TensorDataset(x, x[:, :4] * 2), 32, shuffle=True, seed=1)
    trainer = Trainer(
        model, pb.optim.AdamW(model.parameters(), lr=1e-2), pb.losses.mse, progress=False,
        checkpoint_dir=tmp_path, **keywords,
    )  # fmt: skip
    return trainer, trainer.fit(data, epochs=6)


def test_trainer_saved():
    _, plain = train()
    _, coded = train(saved=3)
    _, again = train(saved=3)
    first, last = plain.steps[0]["loss"], plain.steps[-1]["loss"]
    assert last < 0.2 * first
    assert coded.steps[0]["loss"] == first  # the forward pass has the same bits
    assert coded.steps[-1]["loss"] != last
    assert abs(coded.steps[-1]["loss"] - last) <= 0.1 * first
    assert [s["loss"] for s in coded.steps] == [s["loss"] for s in again.steps]


def test_trainer_memory_budget(tmp_path):
    trainer, history = train(tmp_path, memory_budget=34_000)
    assert trainer.keeping.plan.bytes <= 34_000 < trainer.keeping.plan.default_bytes
    assert history.steps[-1]["loss"] < 0.3 * history.steps[0]["loss"]
    resumed, _ = train(tmp_path, memory_budget=34_000)  # it takes the choice from the checkpoint, not a new probe
    assert resumed.keeping.plan is None and resumed.keeping.choices == trainer.keeping.choices


def test_resume_continues_the_rounding(tmp_path):
    """Inputs kept in 8 bits are rounded at random: a resumed run draws what the uninterrupted one drew."""

    def run(folder, *epochs):
        for n in epochs:
            pb.manual_seed(3)
            model = nn.Sequential(nn.Linear(16, 256, saved=8), nn.GELU(), nn.Linear(256, 4, saved=8))
            x = pb.random.normal((96, 16))
            data = pb.data.DataLoader(pb.data.TensorDataset(x, x[:, :4] * 2), 32, shuffle=True, seed=1)
            trainer = Trainer(
                model, pb.optim.SGD(model.parameters(), lr=0.1), pb.losses.mse, progress=False, checkpoint_dir=folder
            )
            trainer.fit(data, epochs=n)
        return b"".join(p.numpy().tobytes() for p in model.parameters())

    assert run(tmp_path / "a", 2, 4) == run(tmp_path / "b", 4)


def test_replayed_draws_are_rounded_anew():
    """set_state, as SAM and checkpoints use it, does not bring back the rounding of an earlier pass."""
    generator = pb.random.default_generator()
    state = generator.get_state()
    w, x = pb.ones((8, 64)).requires_grad_(), pb.random.normal((16, 64))
    grads = []
    for _ in range(2):
        generator.set_state(state)
        grads.append(pb.gradients(pb.sum(pb.linear(x, w, saved=4)), w)[0].numpy())
    assert not np.array_equal(*grads)


@pytest.mark.parametrize(
    ("keywords", "pattern"),
    [
        ({"saved": 3, "memory_budget": 10}, "saved and memory_budget exclude each other"),
        ({"memory_budget": 0}, "memory_budget must be a number of bytes, got 0"),
        ({"memory_budget": 1}, "is below the least possible"),
        ({"saved": 9}, "1 to 8"),
    ],
)
def test_bad_trainer_arguments(keywords, pattern):
    with pytest.raises(ValueError, match=pattern):
        train(**keywords)
