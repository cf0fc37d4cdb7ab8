"""Objectives for one network that reads a walk and answers for every state and action: values, or choices.

`outputs` [seeds, tasks, states, actions] are the network's answers. Value objectives take them as Q of the uniformly
random walk; policies take a multiple of them as logits. Expectations over transitions and actions are exact, so
objectives differ in what they want and not in how noisily they say it; semi-gradient targets are detached. A target
that does not depend on the network is made beforehand, by the entry of TARGETS. Losses are one per seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tasks.decision import DecisionTasks, policy_values

LOGIT_DECAY = 0.01

Outputs = Float[Tensor, "seeds tasks states actions"]
Losses = Float[Tensor, " seeds"]


@dataclass(frozen=True)
class Lesson:
    """What an objective may use beside the outputs: tasks, gamma, and values or laws to come near to, if it has any."""

    tasks: DecisionTasks
    gamma: float
    target: Outputs | None = None

    def select(self, index: slice) -> Lesson:
        """Some of the tasks."""
        target = None if self.target is None else self.target[:, index]
        return Lesson(self.tasks.select(index), self.gamma, target)


def value_td(outputs: Outputs, lesson: Lesson) -> Losses:
    """TD(0) on state values v(s) = mean_a Q(s, a): E (R + gamma v(s') - v(s))^2, target detached."""
    values = outputs.mean(-1)
    target = lesson.tasks.backup(values.detach(), lesson.gamma).mean(-1)
    return (target - values).square().mean((-2, -1))


def q_sarsa(outputs: Outputs, lesson: Lesson) -> Losses:
    """Expected SARSA of the walk: E (R + gamma mean_a' Q(s', a') - Q(s, a))^2, target detached."""
    target = lesson.tasks.backup(outputs.detach().mean(-1), lesson.gamma)
    return (target - outputs).square().mean((-3, -2, -1))


def regression(outputs: Outputs, lesson: Lesson) -> Losses:
    """Squared error to given values."""
    assert lesson.target is not None
    return (lesson.target - outputs).square().mean((-3, -2, -1))


def imitation(logits: Outputs, lesson: Lesson) -> Losses:
    """- sum_a pi*(a | s) log pi(a | s) for a given law pi*, a mean over states and tasks."""
    assert lesson.target is not None
    return -(lesson.target * logits.log_softmax(-1)).sum(-1).mean((-2, -1))


def policy_gradient(logits: Outputs, lesson: Lesson) -> Losses:
    """Minus the discounted return of the policy from a uniformly drawn state, differentiated exactly.

    LOGIT_DECAY times the logits' variance over actions is added: a return alone does not mind logits without bound.
    """
    policy = logits.softmax(-1)
    returns = (policy * policy_values(lesson.tasks, policy, lesson.gamma)).sum(-1).mean((-2, -1))
    return LOGIT_DECAY * logits.var(-1, correction=0).mean((-2, -1)) - returns


def walk_values(tasks: DecisionTasks, gamma: float) -> Outputs:
    """Q of the uniformly random walk."""
    return policy_values(tasks, torch.full_like(tasks.mean_rewards, 1 / tasks.n_actions), gamma)


def greedy_law(tasks: DecisionTasks, gamma: float) -> Outputs:
    """The action that is greedy for the walk's Q: one step of policy improvement."""
    return best_action_law(walk_values(tasks, gamma))


def optimal_law(tasks: DecisionTasks, gamma: float) -> Outputs:
    """The optimal action, by policy iteration: decision pretraining (arXiv 2306.14892)."""
    law = greedy_law(tasks, gamma)
    for _ in range(tasks.n_states):
        law = best_action_law(policy_values(tasks, law, gamma))
    return law


def best_action_law(q: Outputs) -> Outputs:
    """All mass on the largest value, shared among ties."""
    best = q >= q.amax(-1, keepdim=True) - 1e-4
    return best.to(q.dtype) / best.sum(-1, keepdim=True)


Objective = Callable[[Outputs, Lesson], Losses]
VALUE_OBJECTIVES: dict[str, Objective] = {"value-td": value_td, "q-sarsa": q_sarsa, "q-regression": regression}
POLICY_OBJECTIVES: dict[str, Objective] = {
    "greedy-imitation": imitation,
    "optimal-imitation": imitation,
    "distil-sarsa": imitation,
    "distil-policy-gradient": imitation,
    "policy-gradient": policy_gradient,
}
OBJECTIVES = VALUE_OBJECTIVES | POLICY_OBJECTIVES
# Distillations (arXiv 2210.14215) have their targets from a source that has read the same walk.
TARGETS: dict[str, Callable[[DecisionTasks, float], Outputs]] = {
    "q-regression": walk_values,
    "greedy-imitation": greedy_law,
    "optimal-imitation": optimal_law,
}
