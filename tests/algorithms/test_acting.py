"""Learners that act: one recurrence as source and as hypothesis."""

from dataclasses import dataclass

import torch
from torch import Tensor

from algorithms.acting import ActingLearner, State, follow, interact, laws_everywhere, remember
from tasks.bandits import BanditFamily
from tasks.gridworlds import GridFamily
from tasks.interaction import Step
from tasks.mdps import MDPFamily
from tasks.rollout import random_walk


@dataclass(frozen=True)
class Uniform:
    """Remembers nothing, prefers nothing."""

    def start(self, like: Tensor, n_observations: int, n_actions: int) -> State:
        return {"none": like.new_zeros(*like.shape, n_actions)}

    def law(self, state: State, observation: Tensor) -> Tensor:
        return torch.full_like(state["none"], 1 / state["none"].shape[-1])

    def update(self, state: State, step: Step) -> State:
        return state


@dataclass(frozen=True)
class Counter:
    """Sums of rewards by observation and action; the law is softmax(sharpness * sums)."""

    sharpness: Tensor

    def start(self, like: Tensor, n_observations: int, n_actions: int) -> State:
        return {"sums": like.new_zeros(*like.shape, n_observations, n_actions), "steps": torch.zeros_like(like)}

    def law(self, state: State, observation: Tensor) -> Tensor:
        index = observation[..., None, None].expand(*observation.shape, 1, state["sums"].shape[-1])
        return (self.sharpness[..., None] * state["sums"].gather(-2, index)[..., 0, :]).softmax(-1)

    def update(self, state: State, step: Step) -> State:
        sums = state["sums"]
        at = (step.observation * sums.shape[-1] + step.action)[..., None]
        added = sums.flatten(-2).scatter_add(-1, at, step.reward.to(sums)[..., None]).view(sums.shape)
        return {"sums": added, "steps": state["steps"] + 1}


SHARP = torch.tensor([[0.5], [2.0]])  # one per seed


def test_both_are_acting_learners() -> None:
    assert isinstance(Uniform(), ActingLearner)
    assert isinstance(Counter(SHARP), ActingLearner)


def test_a_learner_without_memory_walks_at_random() -> None:
    tasks = MDPFamily("chain").draw([0, 1], "test", 0, 4)
    acted = interact(Uniform(), tasks, 30, seeds=[0, 1], purpose="go", index=1)
    walked = random_walk(tasks, 30, seeds=[0, 1], purpose="go", index=1)
    assert acted.action.equal(walked.action)
    assert acted.reward.equal(walked.reward)


def test_following_its_own_history_gives_the_laws_by_which_it_acted() -> None:
    """Law and memory at every step are those of the acting learner, which are kept here as it acts."""
    laws: list[Tensor] = []

    @dataclass(frozen=True)
    class Watched(Counter):
        def law(self, state: State, observation: Tensor) -> Tensor:
            laws.append(super().law(state, observation))
            return laws[-1]

    tasks = GridFamily(size=3, horizon=6).draw([0, 1], "test", 0, 3)
    history = interact(Watched(SHARP), tasks, 40, seeds=[0, 1], purpose="go")
    trace = follow(Counter(SHARP), history, internals=True)
    assert trace.laws.equal(torch.stack(laws, -2))
    assert not follow(Counter(SHARP.flip(0)), history).laws.equal(trace.laws)
    assert follow(Counter(SHARP), history).internals == {}


def test_what_is_kept_is_what_was_known_before_each_step() -> None:
    history = random_walk(BanditFamily(n_arms=3).draw([0, 1], "test", 0, 4), 12, seeds=[0, 1], purpose="go")
    trace = follow(Counter(SHARP), history, internals=True)
    assert trace.internals["sums"].shape == (2, 4, 12, 1, 3)
    for t in range(12):
        assert (trace.internals["steps"][..., t] == t).all()
        for arm in range(3):
            paid = history.reward[..., :t] * (history.action[..., :t] == arm)
            assert trace.internals["sums"][..., t, 0, arm].equal(paid.sum(-1))
    end = remember(Counter(SHARP), history)
    assert end["sums"].sum((-2, -1)).equal(history.reward.sum(-1))


def test_the_law_of_a_step_does_not_depend_on_later_ones() -> None:
    history = random_walk(MDPFamily().draw([0, 1], "test", 0, 3), 20, seeds=[0, 1], purpose="go")
    first = history.each(lambda part: part[..., :11])
    assert follow(Counter(SHARP), history).laws[..., :11, :].equal(follow(Counter(SHARP), first).laws)


def test_learning_pays() -> None:
    tasks = BanditFamily().draw([0, 1], "test", 0, 400)
    learnt = interact(Counter(SHARP), tasks, 60, seeds=[0, 1], purpose="go").reward.mean(-1)
    walked = interact(Uniform(), tasks, 60, seeds=[0, 1], purpose="go").reward.mean(-1)
    assert (learnt - walked).mean(-1).min() > 0.1


def test_the_laws_of_all_observations_at_once() -> None:
    history = random_walk(MDPFamily().draw([0, 1], "test", 0, 3), 20, seeds=[0, 1], purpose="go")
    learner, state = Counter(SHARP), remember(Counter(SHARP), history)
    laws = laws_everywhere(learner, state, history.batch, history.n_observations)
    assert laws.shape == (2, 3, 7, 2)
    for seen in range(7):
        assert laws[..., seen, :].equal(learner.law(state, torch.full((2, 3), seen)))


def test_laws_are_differentiable_in_the_constants() -> None:
    history = random_walk(BanditFamily().draw([0, 1], "test", 0, 3), 10, seeds=[0, 1], purpose="go")
    sharpness = SHARP.clone().requires_grad_()
    follow(Counter(sharpness), history).laws.log().gather(-1, history.action[..., None]).sum().backward()
    assert sharpness.grad is not None
    assert (sharpness.grad != 0).all()
