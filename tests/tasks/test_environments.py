"""Gymnasium: our tasks as its environments, equal step by step, and its environments as our tasks."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.utils.seeding import np_random

from tasks.decision import Environment
from tasks.environments import FAMILIES, GymnasiumTasks, TabularEnv
from tasks.gridworlds import GridFamily
from tasks.rollout import random_walk, roll_out


def frozen_lake(**settings) -> gymnasium.Env:
    return gymnasium.make("FrozenLake-v1", **settings)


@pytest.mark.parametrize("name", FAMILIES)
class TestTabularEnv:
    def test_passes_the_check_of_gymnasium(self, name: str) -> None:
        env = gymnasium.make(f"learnscope/{name}-v0").unwrapped
        check_env(env)

    def test_goes_where_the_tensors_go_on_the_same_draws(self, name: str) -> None:
        tasks = FAMILIES[name]().draw([3, 4], "test", 0, 2)
        n, random = 60, np.random.default_rng(0)
        for seed, task in np.ndindex(2, 2):
            env, twin = TabularEnv(tasks, seed, task), np_random(task)[0]
            own = tasks.pick(torch.tensor([[task]]))

            def uniform(twin: np.random.Generator = twin) -> torch.Tensor:
                return torch.full((2, 1), float(twin.random(dtype=np.float32)))

            seen, _ = env.reset(seed=task)
            state, age = own.reset(uniform()), 0
            for _ in range(n):
                assert seen == own.observe(state)[seed, 0]
                action = int(random.integers(tasks.n_actions))
                seen, reward, terminated, truncated, _ = env.step(action)
                draws = torch.stack([uniform(), uniform()], -1)
                state, expected, ended = own.step(state, torch.full((2, 1), action), draws)
                age += 1
                assert reward == expected[seed, 0].item()
                assert terminated == ended[seed, 0].item()
                assert truncated == (age == tasks.horizon)
                assert seen == own.observe(state)[seed, 0]
                if terminated or truncated:
                    seen, _ = env.reset()
                    state, age = own.reset(uniform()), 0

    def test_its_number_says_which_task_it_is(self, name: str) -> None:
        actions = [t * t % FAMILIES[name]().draw([0], "test", 0, 1).n_actions for t in range(20)]

        def course(task: int) -> list[float]:
            env = gymnasium.make(f"learnscope/{name}-v0", task=task).unwrapped
            assert isinstance(env, TabularEnv)
            seen = [float(env.reset(seed=0)[0])]
            for action in actions:
                seen += map(float, env.step(action)[:2])
            return seen

        assert course(0) == course(0)
        assert any(course(0) != course(task) for task in range(1, 40))


def test_settings_are_those_of_the_family() -> None:
    env = gymnasium.make("learnscope/DarkRoom-v0", size=5, horizon=3)
    assert env.observation_space == gymnasium.spaces.Discrete(25)
    assert env.action_space == gymnasium.spaces.Discrete(5)
    env.reset(seed=0)
    assert [env.step(4)[3] for _ in range(3)] == [False, False, True]


class TestGymnasiumTasks:
    def test_frozen_lake_is_acted_in_as_gymnasium_would(self) -> None:
        tasks = GymnasiumTasks(frozen_lake, 3)
        assert isinstance(tasks, Environment)
        history = random_walk(tasks, 150, purpose="test")
        assert (history.n_observations, history.n_actions) == (16, 4)
        assert history.done.any()
        holes_and_goal = [5, 7, 11, 12, 15]
        assert set(history.next_observation[history.done].tolist()) <= set(holes_and_goal)
        assert not set(history.observation.unique().tolist()) & set(holes_and_goal)
        after_end = history.observation[..., 1:][history.done[..., :-1]]
        assert not after_end.any()
        assert history.reward.equal((history.next_observation == 15).float())

    def test_what_happens_is_a_function_of_the_draws(self) -> None:
        tasks = GymnasiumTasks(frozen_lake, 2)
        first, again, other = (random_walk(tasks, 60, purpose=purpose) for purpose in ("go", "go", "come"))
        fresh = random_walk(GymnasiumTasks(frozen_lake, 2), 60, purpose="go")
        for part in ("observation", "action", "reward", "done"):
            assert getattr(first, part).equal(getattr(again, part))
            assert getattr(first, part).equal(getattr(fresh, part))
        assert not first.observation.equal(other.observation)
        assert not first.observation[0, 0].equal(first.observation[0, 1])

    def test_a_time_limit_ends_an_episode(self) -> None:
        tasks = GymnasiumTasks(lambda: frozen_lake(max_episode_steps=4, is_slippery=False), 1)
        left = torch.tensor([1.0, 0.0, 0.0, 0.0])
        history = roll_out(tasks, lambda seen: left.expand(*seen.shape, 4), 12, purpose="test")
        assert history.done[0, 0].nonzero().flatten().tolist() == [3, 7, 11]

    def test_ours_come_back_as_they_went(self) -> None:
        """Deterministic once started, so only the draws of actions matter."""
        family = GridFamily(size=3, horizon=5)
        there = family.draw([7], "environment", 0, 1)
        back = GymnasiumTasks(lambda: gymnasium.make("learnscope/DarkRoom-v0", task=7, size=3, horizon=5), 1)
        ours, theirs = random_walk(there, 40, purpose="test"), random_walk(back, 40, purpose="test")
        for part in ("observation", "action", "reward", "next_observation", "done"):
            assert getattr(ours, part).equal(getattr(theirs, part))

    def test_only_the_last_state_can_be_gone_on_from(self) -> None:
        tasks = GymnasiumTasks(frozen_lake, 2)
        state = tasks.reset(torch.tensor([[0.1, 0.2]]))
        with pytest.raises(ValueError, match="from where they are"):
            tasks.step(state + 1, torch.zeros_like(state), torch.zeros(1, 2, 2))

    def test_numbers_may_start_anywhere(self) -> None:
        class Shifted(gymnasium.Env[np.int64, np.int64]):
            observation_space = gymnasium.spaces.Discrete(3, start=10)
            action_space = gymnasium.spaces.Discrete(2, start=-1)

            def reset(self, *, seed=None, options=None):
                return np.int64(10), {}

            def step(self, action):
                return np.int64(11 + action), float(action), False, False, {}

        history = random_walk(GymnasiumTasks(Shifted, 4), 20, purpose="test")
        assert history.reward.equal(history.action - 1.0)
        assert history.next_observation.equal(history.action)
        assert (history.n_observations, history.n_actions) == (3, 2)

    @pytest.mark.parametrize(("name", "what"), [("CartPole-v1", "observation"), ("Blackjack-v1", "observation")])
    def test_other_spaces_are_refused(self, name: str, what: str) -> None:
        with pytest.raises(ValueError, match=f"the {what} space is .*; allowed: Discrete"):
            GymnasiumTasks(lambda: gymnasium.make(name), 1)
