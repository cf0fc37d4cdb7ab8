"""Objectives of policies are their equations, and their gradients point where they must."""

import numpy as np
import pytest
import torch
from torch import Tensor

from models.policy_objectives import (
    Experience,
    advantages,
    advantages_over_others,
    clipped_loss,
    cross_entropy,
    discounted,
    entropy,
    log_probability,
    standardised,
    value_loss,
)
from tasks.streams import normals, uniforms

SEEDS = [0, 1]


def logits() -> Tensor:
    return normals(SEEDS, "test/logits", 0, 3, 5, 4).double()


def rewards() -> Tensor:
    return uniforms(SEEDS, "test/rewards", 0, 3, 5).double()


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def test_cross_entropy_is_least_at_the_target_where_it_is_the_entropy() -> None:
    own = torch.softmax(logits(), -1)
    close(cross_entropy(logits(), own), entropy(logits()))
    close(entropy(logits()), torch.distributions.Categorical(logits=logits()).entropy().mean((1, 2)))
    other = torch.softmax(logits().flip(-1), -1)
    gap = (own * (own / other).log()).sum(-1).mean((1, 2))
    close(cross_entropy(other.log(), own) - entropy(logits()), gap)
    assert (gap > 0.1).all()


def test_log_probability_of_what_was_done() -> None:
    action = torch.arange(30).view(2, 3, 5) % 4
    expected = torch.distributions.Categorical(logits=logits()).log_prob(action)
    close(log_probability(logits(), action), expected)


def test_discounted_sums_run_forward() -> None:
    x = rewards()
    for t in range(5):
        close(discounted(x, 0.7)[..., t], torch.stack([0.7**k * x[..., t + k] for k in range(5 - t)]).sum(0))
    close(discounted(x, 0.0), x)


@pytest.mark.parametrize("lam", [0.0, 0.9, 1.0])
def test_advantages_are_the_recursion(lam: float) -> None:
    """A_t = delta_t + gamma lam A_{t+1}; at lam = 1 the discounted return less the value, at 0 the TD error."""
    gamma, values, r = 0.8, normals(SEEDS, "test/values", 0, 3, 5).double(), rewards()
    found, carried = advantages(r, values, gamma, lam), torch.zeros(2, 3).double()
    for t in reversed(range(5)):
        after = values[..., t + 1] if t < 4 else 0.0
        delta = (1 - gamma) * r[..., t] + gamma * after - values[..., t]
        carried = delta + gamma * lam * carried
        close(found[..., t], carried)
    if lam == 1.0:
        close(found, (1 - gamma) * discounted(r, gamma) - values)


def test_advantages_over_others_leave_the_task_itself_out() -> None:
    r, gamma = rewards(), 0.9
    returns = (1 - gamma) * discounted(r, gamma)
    for task in range(3):
        others = [other for other in range(3) if other != task]
        close(advantages_over_others(r, gamma)[:, task], returns[:, task] - returns[:, others].mean(1))


def test_standardised_within_a_seed() -> None:
    x = standardised(rewards() * torch.tensor([1.0, 50.0]).double()[:, None, None] + 3)
    close(x.mean((1, 2)), torch.zeros(2).double())
    torch.testing.assert_close(x.std((1, 2)), torch.ones(2).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(x, standardised(rewards()), rtol=0, atol=1e-6)


def experience(shift: float = 0.0) -> Experience:
    action = torch.arange(30).view(2, 3, 5) % 4
    chosen = log_probability(logits(), action) + shift
    return Experience(action, chosen, normals(SEEDS, "test/advantage", 0, 3, 5).double())


def test_the_first_clipped_step_is_the_policy_gradient() -> None:
    """At a ratio of one, the gradient is that of - E A log law(a)."""
    x = logits().requires_grad_()
    (clipped,) = torch.autograd.grad(clipped_loss(x, experience(), 0.2).sum(), x)
    plain = -(experience().advantage * log_probability(x, experience().action)).mean((1, 2)).sum()
    close(clipped, torch.autograd.grad(plain, x)[0])


@pytest.mark.parametrize(("shift", "sign"), [(-0.5, 1.0), (0.5, -1.0)])
def test_beyond_the_clip_there_is_no_gain(shift: float, sign: float) -> None:
    """Actions that have become likelier by more than the clip, and were good, push no further; nor the bad ones."""
    x = logits().requires_grad_()
    done = experience(shift)
    (gradient,) = torch.autograd.grad(clipped_loss(x, done, 0.2).sum(), x)
    still = gradient.abs().sum(-1) == 0
    np.testing.assert_array_equal(still.numpy(), (sign * done.advantage > 0).numpy())


def test_value_loss_is_the_share_of_variance_that_is_left() -> None:
    targets = rewards()
    close(value_loss(targets, targets), torch.zeros(2).double())
    mean = targets.mean((1, 2), keepdim=True).expand_as(targets)
    torch.testing.assert_close(value_loss(mean, targets), torch.full((2,), 14 / 15).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(value_loss(9 * mean, 9 * targets), value_loss(mean, targets), rtol=0, atol=1e-6)
