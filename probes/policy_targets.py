"""What hypotheses say that a policy carries where it is asked, at chosen steps of a history: targets of probes.

A token t holds the step t - 1 and the observation t, so that it is a query and a memory at once: all quantities are
those of the prefix before step t. Of actions, only what tells them apart is a target: contrasts with the first one.

    values       V^(k)(s), Q^(k)(s, .) of k sweeps of value iteration on the counts
    transitions  That(. | s, a), eta = PSEUDO_COUNT
    successors   sum_s' That(s' | s, a) M(s', .), M the random walk's
    goal         what the last reward was for reaching
    delta        the last TD errors of Q-learning and of SARSA: of step t - 1 and, as it waits for the action, t - 2
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import one_hot, pad

from algorithms.acting import ActingLearner, follow
from algorithms.bandit import UCB, PosteriorMean, Thompson
from algorithms.bandit_incremental import EXP3, ConstantStep, GradientBandit
from algorithms.control import QLearning, Sarsa, row
from algorithms.planning import CertaintyEquivalence, planned
from tasks.interaction import Interaction

PSEUDO_COUNT = 0.1
GAMMA = 0.9
SWEEPS = (1, 2, 3, 4, 5)
HORIZONS = (0.5, 0.9)  # discounts of the successor representation
STEP_SIZE = 0.5

# What hypotheses on bandits say that a policy holds, per arm.
BANDIT_QUANTITIES: dict[str, tuple[ActingLearner, str]] = {
    "posterior mean": (PosteriorMean(strength=2.0, prior_mean=0.5), "index"),
    "UCB index": (UCB(initial=0.5, bonus=1.0), "index"),
    "ln p*": (Thompson(), "index"),
    "Q, step .1": (ConstantStep(step_size=0.1, initial=0.5), "q"),
    "Q, step .4": (ConstantStep(step_size=0.4, initial=0.5), "q"),
    "H of gradient bandit": (GradientBandit(step_size=0.4), "preferences"),
    "G of EXP3": (EXP3(temperature=50.0, lapse=0.1), "gains"),
}

Rows = dict[str, Float[Tensor, "*batch times _"]]


@dataclass(frozen=True)
class CountedModel:
    """The counts of a history's prefixes as a model, and where it is asked.

    transitions That(s' | s, a), rewards Rhat(s, a), visits N(s, a), asked s.
    """

    transitions: Float[Tensor, "*batch times states actions states"]
    rewards: Float[Tensor, "*batch times states actions"]
    visits: Float[Tensor, "*batch times states actions"]
    asked: Int[Tensor, "*batch times"]

    @classmethod
    def of(cls, history: Interaction, times: Sequence[int]) -> CountedModel:
        """The model after `times[i]` steps, asked at the observation of that step."""
        known = follow(CertaintyEquivalence(n_sweeps=1), history, internals=True).internals
        raw, sums = (known[name][:, :, list(times)] for name in ("transitions", "rewards"))
        counts = raw + PSEUDO_COUNT
        visits = raw.sum(-1)
        asked = history.observation[..., list(times)]
        return cls(counts / counts.sum(-1, keepdim=True), sums / visits.clamp(min=1), visits, asked)

    def values(self, n_sweeps: int, gamma: float = GAMMA) -> Float[Tensor, "*batch times states actions"]:
        """Q after n_sweeps of value iteration from zero."""
        nowhere = torch.zeros_like(self.rewards[..., 0], dtype=torch.bool)
        return planned(self.rewards, self.transitions, nowhere, gamma, n_sweeps)

    def here(self, table: Float[Tensor, "*batch times states k"]) -> Float[Tensor, "*batch times k"]:
        """The row of the asked state."""
        return row(table, self.asked)

    @property
    def next_states(self) -> Float[Tensor, "*batch times actions states"]:
        """That(. | s, a) of the asked state."""
        return self.here(self.transitions.flatten(-2)).unflatten(-1, self.transitions.shape[-2:])

    def successors(self, gamma: float) -> Float[Tensor, "*batch times actions states"]:
        """What follows each action in the asked state: That M, M = (I - gamma Tbar)^-1, Tbar the random walk's."""
        walk = self.transitions.mean(-2)
        occupancy = torch.linalg.inv(torch.eye(walk.shape[-1], dtype=walk.dtype) - gamma * walk)
        return self.next_states @ occupancy


def contrast(per_action: Float[Tensor, "*batch actions k"]) -> Float[Tensor, "*batch contrasts"]:
    """Of action a minus that of action 0, a > 0, side by side."""
    return (per_action[..., 1:, :] - per_action[..., :1, :]).flatten(-2)


def control_targets(history: Interaction, times: Sequence[int]) -> Rows:
    """Every target by name, at the tokens of `times`, all at least 1."""
    model = CountedModel.of(history, times)
    tables = {k: model.here(model.values(k)) for k in SWEEPS}
    values = {f"value {k}": q.amax(-1, keepdim=True) for k, q in tables.items()}
    advantages = {f"advantage {k}": contrast(q[..., None]) for k, q in tables.items()}
    return {
        **values,
        **advantages,
        "transitions": contrast(model.next_states),
        **{f"successors {gamma}": contrast(model.successors(gamma)) for gamma in HORIZONS},
        "goal": last_reward(history, times),
        "delta q-learning": _errors(QLearning(step_size=STEP_SIZE, initial=0.0, gamma=GAMMA), history, times),
        "delta sarsa": _errors(Sarsa(step_size=STEP_SIZE, initial=0.0, gamma=GAMMA), history, times),
    }


def last_reward(history: Interaction, times: Sequence[int]) -> Float[Tensor, "*batch times observations"]:
    """One at the observation that the last reward was for reaching, all zero before the first."""
    steps = torch.arange(1, history.n_steps + 1)
    last = torch.where(history.reward > 0, steps, 0).cummax(-1).values
    before = pad(last, (1, 0))[..., list(times)]  # numbered from 1; 0 where there was none
    where = history.next_observation.gather(-1, (before - 1).clamp(min=0))
    return one_hot(where, history.n_observations) * (before > 0)[..., None].to(history.reward)


def _errors(learner: ActingLearner, history: Interaction, times: Sequence[int]) -> Float[Tensor, "*batch times 1"]:
    return follow(learner, history, internals=True).internals["td_error"][:, :, list(times), None]


def control_base(history: Interaction, times: Sequence[int]) -> Rows:
    """What is known without any of this: the token itself, time, and counts, sums and means where it is asked."""
    at, before = list(times), [t - 1 for t in times]
    model = CountedModel.of(history, times)
    visits = model.here(model.visits)
    states, actions = history.n_observations, history.n_actions
    like = history.reward
    token = [
        one_hot(history.observation[..., at], states).to(like),
        one_hot(history.observation[..., before], states).to(like),
        one_hot(history.action[..., before], actions).to(like),
        like[..., before, None],
    ]
    time = torch.tensor(at, dtype=like.dtype).expand(*history.batch, len(at))[..., None]
    total = torch.stack([like[..., :t].sum(-1) for t in at], -1)[..., None]
    return {
        "token": torch.cat(token, -1),
        "time": time / history.n_steps,
        "counts": visits / 4,  # like scales: all bases share one penalty
        "rarity": (visits + 1).rsqrt(),
        "sums": total / 4,
        "means": model.here(model.rewards),
    }


def bandit_base(history: Interaction, times: Sequence[int]) -> Rows:
    """Counts, sums and means of every arm, time, the last arm and the last reward."""
    at, before = list(times), [t - 1 for t in times]
    like = history.reward
    pulled = one_hot(history.action, history.n_actions).to(like)
    counts, sums = (x.cumsum(-2)[..., before, :] for x in (pulled, pulled * like[..., None]))
    time = torch.tensor(at, dtype=like.dtype).expand(*history.batch, len(at))[..., None]
    return {
        "counts": counts / history.n_steps,
        "sums": sums / history.n_steps,
        "means": sums / counts.clamp(min=1),
        "time": time / history.n_steps,
        "last": torch.cat([pulled[..., before, :], like[..., before, None]], -1),
    }


def learner_targets(learners: dict[str, tuple[ActingLearner, str]], history: Interaction, times: Sequence[int]) -> Rows:
    """The named internal quantity of every learner that follows the history, by the given names."""
    return {
        name: follow(learner, history, internals=True).internals[quantity][:, :, list(times)]
        for name, (learner, quantity) in learners.items()
    }
