"""Objectives for one network that reads a walk and answers for every state and action: values, or choices.

`outputs` [seeds, tasks, states, actions] are the network's answers. Value objectives take them as Q of the uniformly
random walk; policies take beta times them as logits, beta > 0 learnt per seed. Expectations over transitions and
actions are exact, so objectives differ in what they want and not in how noisily they say it; semi-gradient targets are
detached. Each returns one loss per seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tasks.decision import DecisionTasks, optimal_values, policy_values

Outputs = Float[Tensor, "seeds tasks states actions"]
Losses = Float[Tensor, " seeds"]


@dataclass(frozen=True)
class Lesson:
    """What an objective may use beside the outputs: the tasks, gamma, and the laws of the source where there is one."""

    tasks: DecisionTasks
    gamma: float
    laws: Outputs | None = None

    @property
    def uniform(self) -> Outputs:
        """The walk's own policy."""
        return torch.full_like(self.tasks.mean_rewards, 1 / self.tasks.n_actions)


def value_td(outputs: Outputs, lesson: Lesson) -> Losses:
    """TD(0) on state values v(s) = mean_a Q(s, a): E (R + gamma v(s') - v(s))^2, target detached."""
    values = outputs.mean(-1)
    target = lesson.tasks.backup(values.detach(), lesson.gamma).mean(-1)
    return (target - values).square().mean((-2, -1))


def q_sarsa(outputs: Outputs, lesson: Lesson) -> Losses:
    """Expected SARSA of the walk: E (R + gamma mean_a' Q(s', a') - Q(s, a))^2, target detached."""
    target = lesson.tasks.backup(outputs.detach().mean(-1), lesson.gamma)
    return (target - outputs).square().mean((-3, -2, -1))


def q_regression(outputs: Outputs, lesson: Lesson) -> Losses:
    """Squared error to the walk's true Q."""
    target = policy_values(lesson.tasks, lesson.uniform, lesson.gamma)
    return (target - outputs).square().mean((-3, -2, -1))


def greedy_imitation(logits: Outputs, lesson: Lesson) -> Losses:
    """Cross entropy to the action that is greedy for the walk's true Q: one step of policy improvement."""
    return imitation(logits, best_action_law(policy_values(lesson.tasks, lesson.uniform, lesson.gamma)))


def optimal_imitation(logits: Outputs, lesson: Lesson) -> Losses:
    """Cross entropy to the optimal action: decision pretraining (arXiv 2306.14892)."""
    return imitation(logits, best_action_law(optimal_values(lesson.tasks, lesson.gamma, tolerance=1e-5)))


def distillation(logits: Outputs, lesson: Lesson) -> Losses:
    """Cross entropy to the law of a source that has read the same walk: Algorithm Distillation (arXiv 2210.14215)."""
    assert lesson.laws is not None  # the trainer gives them to objectives that have a source
    return imitation(logits, lesson.laws)


def policy_gradient(logits: Outputs, lesson: Lesson) -> Losses:
    """Minus the discounted return of the policy from a uniformly drawn state, differentiated exactly."""
    policy = logits.softmax(-1)
    return -(policy * policy_values(lesson.tasks, policy, lesson.gamma)).sum(-1).mean((-2, -1))


def imitation(logits: Outputs, laws: Outputs) -> Losses:
    """- sum_a pi*(a | s) log pi(a | s), a mean over states and tasks."""
    return -(laws * logits.log_softmax(-1)).sum(-1).mean((-2, -1))


def best_action_law(q: Outputs) -> Outputs:
    """All mass on the largest value, shared among ties."""
    best = q >= q.amax(-1, keepdim=True) - 1e-4
    return best.to(q.dtype) / best.sum(-1, keepdim=True)


Objective = Callable[[Outputs, Lesson], Losses]
VALUE_OBJECTIVES: dict[str, Objective] = {"value-td": value_td, "q-sarsa": q_sarsa, "q-regression": q_regression}
POLICY_OBJECTIVES: dict[str, Objective] = {
    "greedy-imitation": greedy_imitation,
    "optimal-imitation": optimal_imitation,
    "distil-sarsa": distillation,
    "distil-policy-gradient": distillation,
    "policy-gradient": policy_gradient,
}
OBJECTIVES = VALUE_OBJECTIVES | POLICY_OBJECTIVES
