import itertools
import random

import pytest

from pullback.memory.planner import Candidate, choose


def brute(tensors, budget):
    """The least (error, time) of every combination that fits; those without error first, then by time."""
    best = None
    for picks in itertools.product(*[range(len(t)) for t in tensors]):
        chosen = [t[i] for t, i in zip(tensors, picks, strict=True)]
        if sum(c.bytes for c in chosen) <= budget:
            cost = (sum(c.error for c in chosen), sum(c.time for c in chosen))
            best = cost if best is None or cost < best else best
    return best


def drawn(rng, tensors, forms, zero=0.3):
    """Integer errors and times, so that sums are exact and ties are frequent."""
    return [
        [
            Candidate(
                f"{i}",
                rng.randrange(0, 30),
                float(rng.randrange(5)),
                0.0 if rng.random() < zero else float(rng.randrange(1, 20)),
            )
            for i in range(rng.randrange(1, forms + 1))
        ]
        for _ in range(tensors)
    ]


@pytest.mark.parametrize("seed", range(60))
def test_optimum_by_brute_force(seed):
    rng = random.Random(seed)
    tensors = drawn(rng, rng.randrange(1, 7), 5)
    least = sum(min(c.bytes for c in t) for t in tensors)
    most = sum(max(c.bytes for c in t) for t in tensors)
    for budget in {least, (least + most) // 2, (3 * least + most) // 4, most}:
        plan = choose(tensors, budget)
        chosen = [t[i] for t, i in zip(tensors, plan.picks, strict=True)]
        assert plan.exact
        assert plan.bytes == sum(c.bytes for c in chosen) <= budget
        assert (plan.error, plan.time) == (sum(c.error for c in chosen), sum(c.time for c in chosen))
        assert (plan.error, plan.time) == brute(tensors, budget)


def test_forms_without_error_come_first():
    """The recomputed form fits, so the lossy one is not taken although it is faster and smaller."""
    forms = [Candidate("input", 100), Candidate("recompute", 20, time=9.0), Candidate("1 bit", 5, time=0.0, error=1e-9)]
    plan = choose([forms] * 4, 80)
    assert (plan.picks, plan.error, plan.time) == ((1, 1, 1, 1), 0.0, 36.0)
    plan = choose([forms] * 4, 180)
    assert sorted(plan.picks) == [0, 1, 1, 1]
    plan = choose([forms] * 4, 79)
    assert sorted(plan.picks) == [1, 1, 1, 2]


def test_budget_below_the_least_possible():
    tensors = [[Candidate("a", 10), Candidate("b", 3, error=1.0)], [Candidate("a", 4)]]
    assert choose(tensors, 7).picks == (1, 0)
    with pytest.raises(
        ValueError, match=r"plan: 6 bytes are below the least possible, 7 bytes\nhelp: raise the budget"
    ):
        choose(tensors, 6)


@pytest.mark.parametrize("bad", [{"bytes": -1}, {"time": float("nan")}, {"error": float("inf")}, {"error": -1.0}])
def test_bad_candidates(bad):
    with pytest.raises(ValueError, match=r"plan: candidate 'x' of tensor 1 has .*\nhelp: all are finite"):
        choose([[Candidate("a", 1)], [Candidate("x", **{"bytes": 1, **bad})]], 10)


def test_no_candidate():
    with pytest.raises(ValueError, match=r"plan: tensor 0 has no candidate\nhelp"):
        choose([[]], 10)


def test_no_tensors():
    plan = choose([], 0)
    assert (plan.picks, plan.bytes, plan.error) == ((), 0, 0)


def block(rng):
    """Forms of one activation: bytes per bit, error falling fourfold per bit, as codes do."""
    n, scale = rng.choice([4096, 16384, 65536]), rng.random()
    return [
        Candidate("input", 2 * n),
        *[Candidate(f"{b} bits", b * n // 8, error=scale * 4.0**-b) for b in range(1, 9)],
    ]


def test_exact_with_many_tensors():
    """199 tensors: at most the greedy plan's error, at least the relaxed bound, which it nearly reaches."""
    rng = random.Random(5)
    tensors = [block(rng) for _ in range(199)]
    for share in (0.1, 0.3, 0.6):
        budget = int(share * sum(t[0].bytes for t in tensors))
        plan, greedy = choose(tensors, budget), choose([*tensors, [Candidate("none", 0)]], budget)
        assert plan.exact and not greedy.exact
        assert plan.bytes <= budget and greedy.bytes <= budget
        assert plan.error <= greedy.error


@pytest.mark.parametrize("seed", range(20))
def test_greedy_is_near(seed):
    """With 200 tensors the excess is at most one step of one tensor, which as many bytes more would buy."""
    rng = random.Random(seed)
    small = [block(rng) for _ in range(60)]
    padding = [[Candidate("none", 0)]] * 140
    budget = int(0.2 * sum(t[0].bytes for t in small))
    plan, greedy = choose(small, budget), choose(small + padding, budget)
    assert not greedy.exact and plan.exact
    most = max(c.bytes for t in small for c in t)
    assert greedy.bytes <= budget
    assert choose(small, budget).error <= greedy.error <= choose(small, budget - most).error
