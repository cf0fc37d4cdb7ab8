"""The networks that one prompt serves for values and for choices: trained per objective, tested on the same walks."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from algorithms.acting import ActingLearner
from algorithms.control import PolicyGradient, Sarsa
from analyses.configs import ValueVsPolicy
from models.action_objectives import best_action_law
from models.artifacts import run_folder
from models.config import LinearTransformerConfig
from models.linear import LinearTransformer, layout_of
from models.train_actions import ActionRecord, ActionTraining, answers, first_network, train_actions
from tasks.action_values import Hidden, Walks
from tasks.decision import DecisionTasks, optimal_values, policy_values
from tasks.interaction import Interaction
from tasks.mdps import MDPFamily
from tasks.rollout import random_walk

UNTRAINED = "untrained"
HIDDEN: dict[Hidden, str] = {"nothing": "", "rewards": "shuffled rewards", "successors": "no next pairs"}


@dataclass(frozen=True)
class Subjects:
    """Networks trained for one objective on one kind of prompt: everything that decides their weights."""

    settings: ValueVsPolicy
    objective: str
    hidden: Hidden = "nothing"

    @property
    def name(self) -> str:
        return f"{self.objective}, {HIDDEN[self.hidden]}" if HIDDEN[self.hidden] else self.objective

    @property
    def walks(self) -> Walks:
        return Walks(MDPFamily(self.settings.family), self.settings.gamma, hidden=self.hidden)

    @property
    def config(self) -> LinearTransformerConfig:
        tasks = self.walks.family.draw([0], "size", 0, 1)
        d = tasks.n_states * tasks.n_actions
        return LinearTransformerConfig(self.settings.n_layers, True, d, gamma=self.settings.gamma)

    @property
    def training(self) -> ActionTraining:
        s = self.settings
        return ActionTraining(self.objective, s.context_length, s.steps, s.tasks_per_update, s.learning_rate)

    @property
    def source(self) -> ActingLearner | None:
        """Whose laws are imitated, in distillations."""
        sources = {"distil-sarsa": Sarsa(0.05, step_size=0.5, gamma=self.settings.gamma)}
        sources |= {"distil-policy-gradient": PolicyGradient(step_size=0.5, gamma=self.settings.gamma)}
        return sources.get(self.objective)

    @property
    def folder(self) -> Path:
        setting = {"model": self.config.to_json(), "training": asdict(self.training), "task": repr(self.walks)}
        setting["source"] = repr(self.source)
        return run_folder(self.settings.out, "policies", setting, range(self.settings.seeds))

    def train(self) -> ActionRecord:
        """Trains, or loads the run where a complete one stands."""
        seeds = range(self.settings.seeds)
        return train_actions(self.config, self.training, self.walks, seeds, self.folder, source=self.source)


def untrained(config: ValueVsPolicy) -> tuple[Subjects, LinearTransformer, list[int]]:
    """The control that nothing was learnt in."""
    subjects, seeds = Subjects(config, UNTRAINED), list(range(config.seeds))
    return subjects, first_network(subjects.config, seeds).double(), seeds


@dataclass(frozen=True)
class HeldOut:
    """Fresh tasks, a walk through each, and the best actions; states in which all actions are good say nothing."""

    tasks: DecisionTasks
    context: Float[Tensor, "1 tasks n width"]
    optimal: Float[Tensor, "1 tasks states actions"]
    walk: Float[Tensor, "1 tasks states actions"]

    def accuracy(self, preferences: Float[Tensor, "seeds tasks states actions"]) -> Float[Tensor, " seeds"]:
        """How often the preferred action is optimal, ties broken by chance, where that makes a difference.

        On a task on which preferences are not finite, there are none.
        """
        sound = preferences.isfinite().all(-1, keepdim=True).all(-2, keepdim=True)
        preferences = torch.where(sound, preferences, 0.0)
        best = best_action_law(self.optimal) > 0
        chosen = (preferences == preferences.amax(-1, keepdim=True)).double()
        right = (chosen * best).sum(-1) / chosen.sum(-1)
        matters = ~best.all(-1)
        return (right * matters).sum((-2, -1)) / matters.sum()


def held_out(subjects: Subjects) -> HeldOut:
    """The same tasks and walks for all seeds and objectives, seen as the subjects see them."""
    tasks, history = _test_walks(subjects)
    context = subjects.walks.tokens(history, [0], "held-out", 0, layout_of(subjects.config)).double()
    uniform = torch.full_like(tasks.mean_rewards, 1 / tasks.n_actions)
    gamma = subjects.settings.gamma
    return HeldOut(tasks, context, optimal_values(tasks, gamma), policy_values(tasks, uniform, gamma))


def held_out_walk(subjects: Subjects) -> Interaction:
    """The walks of the held-out tasks as a learner reads them, step by step."""
    _, history = _test_walks(subjects)
    return history.each(lambda x: x[..., :-1])


def _test_walks(subjects: Subjects) -> tuple[DecisionTasks, Interaction]:
    """One step more than a context holds: it gives the last token its next pair."""
    settings = subjects.settings
    tasks = subjects.walks.family.draw([0], "held-out", 0, settings.test_tasks).to(torch.float64)
    return tasks, random_walk(tasks, settings.context_length + 1, seeds=[0], purpose="held-out/walk")


def preferences(model: LinearTransformer, test: HeldOut) -> Float[Tensor, "seeds tasks states actions"]:
    """What the network says of every state and action."""
    with torch.no_grad():
        said = answers(model.P, model.Q, test.context, model.config)
    return said.unflatten(-1, (test.tasks.n_states, test.tasks.n_actions))
