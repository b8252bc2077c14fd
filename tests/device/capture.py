"""pb.capture: a replayed graph computes what the step computes, and says what it cannot hold."""

from __future__ import annotations

import numpy as np
import pytest

import pullback as pb


def train(device, captured, make, calls=7, odd=None, **options):
    pb.manual_seed(5)
    w = pb.asarray(np.linspace(-1, 1, 6).astype(np.float32)).to(device).requires_grad_()
    opt = make([w])
    running = pb.zeros((), device=device)

    def step(x, factor):
        y = pb.dropout(pb.gelu(w * x) * factor, 0.3)
        loss = (y * y).sum()
        loss.backward()
        opt.step(**options)
        opt.zero_grad()
        running.detach()[...] = running * 0.5 + loss.detach()
        return {"loss": loss, "parts": (y, factor)}

    f = pb.capture(step) if captured else step
    rng = np.random.default_rng(1)
    out = []
    for i in range(calls):
        opt.param_groups[0]["lr"] = 0.05 / (i + 1)
        x = pb.asarray(rng.normal(size=(2, 6) if i == odd else 6).astype(np.float32)).to(device)
        result = f(x, 2.0)
        out.append((result["loss"].item(), result["parts"][0].tolist(), result["parts"][1], opt.last_norm))
    return out, w.tolist(), running.item(), opt._driver.get_state(w)[0], f


RULES = {
    "SGD": lambda p: pb.optim.SGD(p, lr=0.1, momentum=0.9),
    "AdamW": lambda p: pb.optim.AdamW(p, lr=0.1),
    "Lion": lambda p: pb.optim.Lion(p, lr=0.1),
}


@pytest.mark.parametrize("rule", list(RULES))
@pytest.mark.parametrize("options", [{}, {"clip_norm": 0.5}, {"scale": 2.0, "clip_value": 0.1}], ids=["", "clip", "scale"])
def test_replays_equal_steps(rule, options):
    want = train("cuda", False, RULES[rule], **options)
    got = train("cuda", True, RULES[rule], **options)
    assert got[4].graphs == 1
    assert got[:4] == want[:4]


def test_other_shapes_run_and_are_captured_anew():
    want, got = train("cuda", False, RULES["AdamW"], odd=3), train("cuda", True, RULES["AdamW"], odd=3)
    assert got[:4] == want[:4] and got[4].graphs == 1
    f = pb.capture(lambda x: x * 2)
    for shape in ((2,), (3,), (2,), (3,), (2,), (3,)):
        x = pb.ones(shape, device="cuda")
        assert f(x).tolist() == [2.0] * shape[0]
    assert f.graphs == 2


def test_without_a_device_the_step_runs():
    want, got = train("cpu", False, RULES["AdamW"]), train("cpu", True, RULES["AdamW"])
    assert got[:4] == want[:4] and got[4].graphs == 0


def test_plain_arguments_are_part_of_the_key():
    f = pb.capture(lambda x, k, flag=False: -x * k if flag else x * k)
    x = pb.ones(2, device="cuda")
    for _ in range(3):
        assert f(x, 2).tolist() == [2.0, 2.0] and f(x, 3).tolist() == [3.0, 3.0]
        assert f(x, 3, flag=True).tolist() == [-3.0, -3.0]
    assert f.graphs == 3


def test_results_are_tensors_of_their_own():
    f = pb.capture(lambda x: x + 1)
    x = pb.zeros(2, device="cuda")
    first, second, third = f(x), f(x + 1), f(x + 2)
    assert first.tolist() == [1.0, 1.0] and second.tolist() == [2.0, 2.0] and third.tolist() == [3.0, 3.0]
    assert third.device == "cuda:0" and not third.requires_grad


def test_draws_go_on():
    f = pb.capture(lambda x: x + pb.random.normal(3, device="cuda"))
    x = pb.zeros(3, device="cuda")
    pb.manual_seed(3)
    got = [f(x).tolist() for _ in range(5)] + [pb.random.normal(3, device="cuda").tolist()]
    pb.manual_seed(3)
    assert got == [pb.random.normal(3, device="cuda").tolist() for _ in range(6)]


def test_another_decay_is_captured_anew():
    w = pb.ones(2, device="cuda").requires_grad_()
    opt = pb.optim.SGD([w], lr=0.5)

    @pb.capture
    def step(x):
        (w * x).sum().backward()
        opt.step()
        opt.zero_grad()

    x = pb.ones(2, device="cuda")
    for _ in range(3):
        step(x)
    assert w.tolist() == [-0.5, -0.5] and step.graphs == 1
    opt.param_groups[0]["weight_decay"] = 0.5
    step(x)
    assert w.tolist() == [-0.5 - 0.5 * (1 - 0.25)] * 2


@pytest.mark.parametrize(
    "step, text",
    [
        (lambda x: x.sum().item(), "item: a value of a device tensor is read inside pb.capture"),
        (lambda x: x if bool(x[0] > 0) else -x, "a value of a device tensor is read"),
        (lambda x: x + pb.tensor([1.0, 2.0], device="cuda"), "to: data of the CPU is copied to the device"),
        (lambda x: pb.capture(lambda y: y)(x).tolist(), "a value of a device tensor is read"),
    ],
)
def test_what_a_graph_cannot_hold(step, text):
    f = pb.capture(step)
    x = pb.ones(2, device="cuda")
    state = pb.random.default_generator().get_state()
    f(x)
    with pytest.raises(pb.GraphError, match=text):
        f(x)
    assert (x + 1).tolist() == [2.0, 2.0] and pb.random.default_generator().get_state() == state


def test_optimizers_that_a_graph_cannot_hold():
    w = pb.ones(4, device="cuda").requires_grad_()
    opt = pb.optim.LAMB([w], lr=0.1)

    @pb.capture
    def step(x):
        (w * x).sum().backward()
        opt.step()
        opt.zero_grad()

    step(pb.ones(4, device="cuda"))
    with pytest.raises(pb.GraphError, match="an optimizer needs sums over whole tensors inside pb.capture"):
        step(pb.ones(4, device="cuda"))


def test_a_failed_capture_takes_its_step_back():
    w = pb.ones(2, device="cuda").requires_grad_()
    opt = pb.optim.AdamW([w], lr=0.1)

    def step(x):
        (w * x).sum().backward()
        opt.step()
        opt.zero_grad()
        return w.sum().item()

    f = pb.capture(step)
    x = pb.ones(2, device="cuda")
    f(x)
    before = w.tolist()
    with pytest.raises(pb.GraphError, match="inside pb.capture"):
        f(x)
    assert w.tolist() == before
    assert opt._driver.get_state(w)[0] == 1


def test_a_skipped_step_does_not_count():
    w = pb.ones(2, device="cuda").requires_grad_()
    opt = pb.optim.AdamW([w], lr=0.1)

    @pb.capture
    def step(x):
        (w * x).sum().backward()
        opt.step(clip_norm=1.0)
        opt.zero_grad()

    good, bad = pb.ones(2, device="cuda"), pb.full((2,), float("nan"), device="cuda")
    for x, skipped in ((good, False), (good, False), (bad, True), (good, False)):
        step(x)
        assert opt.last_skipped is skipped
    assert opt._driver.get_state(w)[0] == 3


def test_trainer():
    def run(device, capture):
        pb.manual_seed(0)

        class Scale(pb.nn.Module):
            def __init__(self):
                super().__init__()
                self.w = pb.nn.Parameter(pb.ones((3,)))

            def forward(self, x):
                return pb.tanh(x * self.w)

        model = Scale().to(device)
        data = pb.data.TensorDataset(pb.random.normal((22, 3), rng=pb.random.Generator(2)), pb.ones((22, 3)))
        trainer = pb.train.Trainer(
            model,
            pb.optim.AdamW(model.parameters(), lr=0.05),
            pb.losses.mse,
            metrics={"off": lambda a, b: pb.mean(pb.abs(a - b))},
            schedule=lambda k: 0.05 / (1 + k),
            clip_norm=0.4,
            capture=capture,
            progress=False,
        )
        history = trainer.fit(pb.data.DataLoader(data, 4, shuffle=True), epochs=3)
        assert next(model.parameters()).device == ("cpu" if device == "cpu" else "cuda:0")
        return [(r["loss"], r["off"]) for r in history.steps], model.w.tolist()

    here, there, captured = run("cpu", True), run("cuda", False), run("cuda", True)
    assert np.allclose(here[0], there[0], rtol=1e-5) and np.allclose(here[1], there[1], rtol=1e-5)
    assert captured == there
