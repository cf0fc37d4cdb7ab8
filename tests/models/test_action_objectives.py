"""What each objective is minimal at, and that semi-gradients and policy gradients are the ones they are named after."""

import pytest
import torch

from models.action_objectives import (
    LOGIT_DECAY,
    POLICY_OBJECTIVES,
    TARGETS,
    VALUE_OBJECTIVES,
    Lesson,
    best_action_law,
    greedy_law,
    imitation,
    optimal_law,
    policy_gradient,
    walk_values,
)
from tasks.decision import optimal_values, policy_values
from tasks.mdps import MDPFamily

GAMMA = 0.9
TASKS = MDPFamily("ring").draw([0, 1], "test", 0, 6).to(torch.float64)


def lesson_of(objective: str) -> Lesson:
    make = TARGETS.get(objective)
    return Lesson(TASKS, GAMMA, make and make(TASKS, GAMMA))


@pytest.mark.parametrize("objective", VALUE_OBJECTIVES)
def test_value_objectives_rest_at_the_walks_values_and_nowhere_near(objective: str) -> None:
    """The walk's Q leaves neither error nor gradient; moved in one state, it has both."""
    for moved in (0.0, 0.1):
        q = walk_values(TASKS, GAMMA).clone()
        q[..., 0, :] += moved
        q.requires_grad_()
        loss = VALUE_OBJECTIVES[objective](q, lesson_of(objective))
        loss.sum().backward()
        assert q.grad is not None
        if moved:
            assert loss.min() > 1e-4
            assert q.grad.abs().max() > 1e-3
        else:
            assert loss.max() < 1e-20
            assert q.grad.abs().max() < 1e-10


def test_td_targets_carry_no_gradient() -> None:
    """Of E (r + gamma v' - v)^2 only v moves: the gradient is -2 E delta dv."""
    q = torch.randn(2, 6, 7, 2, dtype=torch.float64, requires_grad=True)
    lesson = lesson_of("q-sarsa")
    VALUE_OBJECTIVES["q-sarsa"](q, lesson).sum().backward()
    delta = TASKS.backup(q.detach().mean(-1), GAMMA) - q.detach()
    torch.testing.assert_close(q.grad, -2 * delta / (6 * 7 * 2), atol=1e-12, rtol=0)


def test_imitation_is_least_at_the_law() -> None:
    laws = torch.rand(2, 6, 7, 2, dtype=torch.float64) + 0.1
    laws = laws / laws.sum(-1, keepdim=True)
    logits = laws.log().requires_grad_()
    imitation(logits, Lesson(TASKS, GAMMA, laws)).sum().backward()
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-12


def test_the_optimal_law_is_that_of_value_iteration() -> None:
    for kind in ("ring", "tree"):
        tasks = MDPFamily(kind).draw([0], "test", 1, 40).to(torch.float64)
        assert torch.equal(optimal_law(tasks, GAMMA), best_action_law(optimal_values(tasks, GAMMA)))


def test_on_rings_greed_for_the_walks_values_is_optimal_and_on_chains_it_is_not() -> None:
    """The nearer way round is the better one for the walk, too; then imitation of either is one objective."""
    laws = {}
    for kind in ("ring", "chain"):
        tasks = MDPFamily(kind).draw([0], "test", 2, 200).to(torch.float64)
        laws[kind] = (greedy_law(tasks, GAMMA) - optimal_law(tasks, GAMMA)).abs().amax((-2, -1))
    assert (laws["ring"] == 0).all()
    assert (laws["chain"] > 0).any()


def test_the_policy_gradient_is_that_of_the_return() -> None:
    """The policy gradient theorem: dJ/dlogit(s, a) = sum_t gamma^t P(s_t = s) pi(a | s) A(s, a)."""
    logits = torch.randn(2, 6, 7, 2, dtype=torch.float64, requires_grad=True)
    policy_gradient(logits, Lesson(TASKS, GAMMA)).sum().backward()
    policy = logits.detach().softmax(-1)
    q = policy_values(TASKS, policy, GAMMA)
    advantage = q - (policy * q).sum(-1, keepdim=True)
    kernel = torch.zeros(2, 6, 7, 2, 7, dtype=torch.float64).scatter_add(-1, TASKS.successors, TASKS.probabilities)
    walked = (policy[..., None] * kernel).sum(-2)
    start = torch.full((2, 6, 7), 1 / 7, dtype=torch.float64)
    visits = torch.linalg.solve((torch.eye(7, dtype=torch.float64) - GAMMA * walked).mT, start)
    centred = logits.detach() - logits.detach().mean(-1, keepdim=True)
    expected = LOGIT_DECAY * centred / (7 * 6) - visits[..., None] * policy * advantage / 6
    torch.testing.assert_close(logits.grad, expected, atol=1e-10, rtol=0)


def test_every_policy_objective_has_a_target_or_a_source_or_a_return() -> None:
    without = POLICY_OBJECTIVES.keys() - TARGETS.keys()
    assert without == {"distil-sarsa", "distil-policy-gradient", "policy-gradient"}
