"""Histories: what is in them, episodes that follow one another, and what they are a function of."""

from collections.abc import Callable
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from tasks.bandits import BanditFamily
from tasks.decision import DecisionFamily, DecisionTasks, drawn
from tasks.gridworlds import GridFamily
from tasks.interaction import Interaction, Step, in_time, interleaved
from tasks.mdps import MDPFamily
from tasks.rollout import random_walk, roll_out
from tasks.streams import uniforms

FAMILIES: list[DecisionFamily] = [
    BanditFamily(),
    BanditFamily("gaussian"),
    *(MDPFamily(kind) for kind in ("ring", "tree", "chain", "dense")),
    GridFamily("key-to-door", size=3, horizon=7),
]


def same(one: Interaction, other: Interaction) -> bool:
    return all(getattr(one, field.name).equal(getattr(other, field.name)) for field in fields(Step))


def skewed(n_actions: int) -> Callable[[Tensor], Tensor]:
    """The law of a player who prefers late actions in late states."""

    def law(seen: Tensor) -> Tensor:
        return ((1 + seen[..., None]) * torch.arange(1.0, n_actions + 1) / 10).softmax(-1)

    return law


@pytest.mark.parametrize("family", FAMILIES, ids=repr)
class TestRollOut:
    def test_is_the_course_of_events_that_its_draws_decide(self, family: DecisionFamily) -> None:
        """One task at a time, from the tables."""
        tasks, n = family.draw([0, 1], "test", 0, 3), 40
        law = skewed(tasks.n_actions)
        history = roll_out(tasks, law, n, seeds=[0, 1], purpose="go", index=2)
        draws = uniforms([0, 1], "go", 2, n + 1, 3, 4)
        for seed, task in [(0, 0), (0, 2), (1, 1)]:
            own = DecisionTasks(
                **{
                    part: getattr(tasks, part)[seed : seed + 1, task : task + 1]
                    for part in ("successors", "probabilities", "rewards", "start", "terminal")
                },
                observations=tasks.observations,
                horizon=tasks.horizon,
                reward_law=tasks.reward_law,
                noise=tasks.noise,
            )
            u = draws[seed : seed + 1, :, task : task + 1]
            state, age = own.reset(u[:, n, :, 0]), 0
            for t in range(n):
                seen = own.observe(state)
                action = drawn(law(seen), u[:, t, :, 0])
                after, reward, ended = own.step(state, action, u[:, t, :, 1:3])
                age += 1
                done = bool(ended) or age == own.horizon
                step = history.at(t)
                assert step.observation[seed, task] == seen
                assert step.action[seed, task] == action
                assert step.reward[seed, task] == reward
                assert step.next_observation[seed, task] == own.observe(after)
                assert step.done[seed, task] == done
                state, age = (own.reset(u[:, t, :, 3]), 0) if done else (after, age)

    def test_a_seed_does_not_depend_on_the_others(self, family: DecisionFamily) -> None:
        together, alone = (
            random_walk(family.draw(seeds, "test", 1, 4), 30, seeds=seeds, purpose="go", index=3)
            for seeds in ([4, 1, 9], [1])
        )
        assert same(together.each(lambda part: part[1:2]), alone)
        assert not same(together.each(lambda part: part[:1]), alone)

    def test_depends_on_purpose_and_index(self, family: DecisionFamily) -> None:
        tasks = family.draw([0], "test", 0, 4)
        first, again = (random_walk(tasks, 30, purpose="go") for _ in range(2))
        assert same(first, again)
        assert not same(first, random_walk(tasks, 30, purpose="come"))
        assert not same(first, random_walk(tasks, 30, purpose="go", index=1))

    def test_episodes_end_at_terminal_states_and_at_the_horizon(self, family: DecisionFamily) -> None:
        tasks = replace(family.draw([0], "test", 0, 20), horizon=9)
        history = random_walk(tasks, 60, purpose="go")
        numbers = torch.tensor(tasks.observations)
        age = 0
        for t in range(60):
            step = history.at(t)
            age = torch.where(history.done[..., t - 1], 0, age) + 1 if t else torch.ones(1, 20)
            at_end = (tasks.terminal & (numbers == step.next_observation[..., None])).any(-1)
            assert step.done.equal(at_end | (age == 9))
        going = ~history.done[..., :-1]
        assert history.observation[..., 1:][going].equal(history.next_observation[..., :-1][going])


def test_every_step_is_heard_once_and_in_order() -> None:
    heard: list[Step] = []
    tasks = MDPFamily("chain").draw([0, 1], "test", 0, 3)
    history = roll_out(tasks, skewed(3), 10, seeds=[0, 1], purpose="go", hear=heard.append)
    assert len(heard) == history.n_steps == 10
    assert history.batch == (2, 3)
    assert (history.n_observations, history.n_actions) == (8, 3)
    for t, step in enumerate(heard):
        for field in fields(Step):
            assert getattr(step, field.name).equal(getattr(history.at(t), field.name))


def test_a_change_is_made_to_every_tensor() -> None:
    history = random_walk(MDPFamily().draw([0], "test", 0, 3), 10, purpose="go")
    late = history.each(lambda part: part[..., 4:])
    assert late.n_steps == 6
    for field in fields(Step):
        assert getattr(late, field.name).equal(getattr(history, field.name)[..., 4:])
    assert (late.n_observations, late.n_actions) == (7, 2)


def test_histories_come_one_after_the_other_or_take_turns() -> None:
    history = random_walk(MDPFamily().draw([0, 1], "test", 0, 4), 10, seeds=[0, 1], purpose="go")
    early, late = (history.each(lambda part, some=some: part[..., some]) for some in (slice(0, 3), slice(3, None)))
    assert same(in_time(early, late), history)
    assert not same(in_time(late, early), history)
    even, odd = (history.each(lambda part, k=k: part[:, k::2]) for k in (0, 1))
    assert same(interleaved((even, odd)), history)
    assert not same(interleaved((odd, even)), history)


def test_actions_follow_the_law() -> None:
    tasks = BanditFamily(n_arms=3).draw([0], "test", 0, 5000)
    history = roll_out(tasks, lambda seen: torch.tensor([0.2, 0.0, 0.8]).expand(*seen.shape, 3), 4, purpose="go")
    share = torch.bincount(history.action.flatten(), minlength=3) / history.action.numel()
    assert share.tolist() == pytest.approx([0.2, 0.0, 0.8], abs=0.01)
