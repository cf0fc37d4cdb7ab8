"""Decision problems: their exact solutions against brute force, and the laws that steps follow."""

from itertools import product

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from tasks.bandits import BanditFamily
from tasks.decision import (
    DecisionFamily,
    DecisionTasks,
    Environment,
    Pool,
    Renumbered,
    drawn,
    finite_horizon_values,
    optimal_values,
    policy_values,
)
from tasks.errors import ConfigError
from tasks.gridworlds import GridFamily
from tasks.mdps import MDPFamily
from tasks.streams import uniforms

LARGEST_DRAW = 1 - 2.0**-24
GAMMA = 0.9
EVERY_FAMILY: list[DecisionFamily] = [
    *(BanditFamily(kind) for kind in ("bernoulli", "gaussian", "linear")),
    *(MDPFamily(kind) for kind in ("ring", "tree", "chain", "dense")),
    *(GridFamily(kind, size=3) for kind in ("dark-room", "dark-room-hard", "key-to-door")),
]


def small(n: int = 2) -> DecisionTasks:
    """Tasks (2 seeds, n tasks) of 4 states, the last one terminal, 2 actions and 2 possible successors."""

    def draw(part: str, *shape: int) -> Tensor:
        return uniforms([3, 5], f"small/{part}", 0, n, *shape).double()

    first = draw("probabilities", 4, 2)
    start = draw("start", 4)
    return DecisionTasks(
        successors=(draw("successors", 4, 2, 2) * 4).long(),
        probabilities=torch.stack([first, 1 - first], -1),
        rewards=draw("rewards", 4, 2, 2) - 0.5,
        start=start / start.sum(-1, keepdim=True),
        terminal=torch.tensor([False, False, False, True]).expand(2, n, 4),
        observations=(0, 1, 2, 2),
    )


def single(rewards: Tensor, **settings) -> DecisionTasks:
    """One task of one state, and one action that leads to it with these mean rewards, all equally likely."""
    k = len(rewards)
    return DecisionTasks(
        successors=torch.zeros(1, 1, 1, 1, k, dtype=torch.int64),
        probabilities=torch.full((1, 1, 1, 1, k), 1 / k),
        rewards=rewards.view(1, 1, 1, 1, k),
        start=torch.ones(1, 1, 1),
        terminal=torch.zeros(1, 1, 1, dtype=torch.bool),
        observations=(0,),
        **settings,
    )


def dense(tasks: DecisionTasks, seed: int, task: int) -> tuple[np.ndarray, np.ndarray]:
    """P [states, actions, states] without the ways into the end, and R [states, actions], entry by entry."""
    states, actions, k = tasks.successors.shape[2:]
    kernel, reward = np.zeros((states, actions, states)), np.zeros((states, actions))
    for s, a, i in product(range(states), range(actions), range(k)):
        after, p = int(tasks.successors[seed, task, s, a, i]), float(tasks.probabilities[seed, task, s, a, i])
        reward[s, a] += p * float(tasks.rewards[seed, task, s, a, i])
        if not tasks.terminal[seed, task, after]:
            kernel[s, a, after] += p
    return kernel, reward


def solved(kernel: np.ndarray, reward: np.ndarray, policy: np.ndarray) -> np.ndarray:
    """Q of a policy [states, actions] from a dense matrix solve over pairs."""
    states, actions = reward.shape
    pairs = np.einsum("san,nb->sanb", kernel, policy).reshape(states * actions, -1)
    return np.linalg.solve(np.eye(states * actions) - GAMMA * pairs, reward.ravel()).reshape(reward.shape)


class TestValues:
    def test_policy_values_solve_the_bellman_equations_over_pairs(self) -> None:
        tasks = small()
        policy = uniforms([3, 5], "policy", 0, 2, 4, 2).double().softmax(-1)
        q = policy_values(tasks, policy, GAMMA).numpy()
        for seed, task in np.ndindex(2, 2):
            expected = solved(*dense(tasks, seed, task), policy[seed, task].numpy())
            np.testing.assert_allclose(q[seed, task], expected, rtol=0, atol=1e-10)
            other = solved(*dense(tasks, seed, task), policy[seed, 1 - task].numpy())
            assert np.abs(q[seed, task] - other).max() > 1e-3

    def test_optimal_values_are_those_of_the_best_of_all_policies(self) -> None:
        tasks = small()
        q = optimal_values(tasks, GAMMA, tolerance=1e-11).numpy()
        for seed, task in np.ndindex(2, 2):
            kernel, reward = dense(tasks, seed, task)
            every = [solved(kernel, reward, np.eye(2)[list(choice)]) for choice in product(range(2), repeat=4)]
            np.testing.assert_allclose(q[seed, task], np.max(every, 0), rtol=0, atol=1e-10)

    def test_the_tolerance_is_kept(self) -> None:
        tasks = small()
        exact = optimal_values(tasks, 0.95, tolerance=1e-11)
        rough = optimal_values(tasks, 0.95, tolerance=0.01)
        assert 1e-6 < (exact - rough).abs().max() < 0.01

    @pytest.mark.parametrize("gamma", [0.0, 0.9])
    def test_single_precision_ends_too(self, gamma: float) -> None:
        tasks = small(200)
        q = optimal_values(tasks.to(torch.float32), gamma)
        assert q.dtype == torch.float32
        torch.testing.assert_close(q.double(), optimal_values(tasks, gamma), rtol=1e-5, atol=1e-5 / (1 - gamma))

    def test_finite_horizon_values_follow_from_every_course_of_events(self) -> None:
        tasks = small()
        q = finite_horizon_values(tasks, 4).numpy()

        def best(kernel: np.ndarray, reward: np.ndarray, s: int, a: int, steps: int) -> float:
            if steps == 1:
                return reward[s, a]
            after = [max(best(kernel, reward, n, b, steps - 1) for b in range(2)) for n in range(4)]
            return reward[s, a] + kernel[s, a] @ after

        for seed, task, s, a in np.ndindex(2, 2, 4, 2):
            assert q[seed, task, s, a] == pytest.approx(best(*dense(tasks, seed, task), s, a, 4), abs=1e-10)
        assert finite_horizon_values(tasks, 1).equal(tasks.mean_rewards)

    def test_what_lies_behind_the_end_is_worth_nothing(self) -> None:
        tasks = small()
        worth = torch.tensor([1.0, 2.0, 3.0, 1e6], dtype=torch.float64).expand(2, 2, 4)
        assert tasks.expected(worth).equal(tasks.expected(worth * ~tasks.terminal))
        assert tasks.expected(worth).abs().max() <= 3

    @pytest.mark.parametrize("gamma", [-0.1, 1.0])
    def test_undiscounted_values_are_refused(self, gamma: float) -> None:
        tasks = small()
        with pytest.raises(ValueError, match=f"gamma is {gamma}"):
            optimal_values(tasks, gamma)
        with pytest.raises(ValueError, match=f"gamma is {gamma}"):
            policy_values(tasks, torch.full((2, 2, 4, 2), 0.5).double(), gamma)


class TestDrawn:
    def test_the_cumulative_law_is_inverted(self) -> None:
        law = torch.tensor([0.2, 0.0, 0.5, 0.3]).expand(6, 4)
        draws = torch.tensor([0.0, 0.19, 0.21, 0.69, 0.71, LARGEST_DRAW])
        assert drawn(law, draws).tolist() == [0, 0, 2, 2, 3, 3]

    @pytest.mark.parametrize(
        "law", [[0.0, 1.0], [1.0, 0.0], [0.0, 0.5, 0.5, 0.0], [0.0, 0.1, 0.2, 0.7000001, 0.0], [1.0]]
    )
    @pytest.mark.parametrize("draw", [0.0, LARGEST_DRAW])
    def test_extreme_draws_never_pick_the_impossible(self, law: list[float], draw: float) -> None:
        assert law[int(drawn(torch.tensor([law]), torch.tensor([draw])))] > 0


class TestStep:
    def test_successors_and_rewards_are_as_frequent_as_the_tables_say(self) -> None:
        n, tasks = 20_000, small(1).pick(torch.zeros(1, 1, dtype=torch.int64)).to(torch.float32)
        draws = uniforms([0, 1], "test/steps", 0, n, 2)
        for s, a in np.ndindex(4, 2):
            many = tasks.repeat(n)
            state, action = torch.full((2, 1, n), s), torch.full((2, 1, n), a)
            after, reward, ended = many.step(state, action, draws[:, None])
            assert ended.equal(after == 3)
            for seed in range(2):
                p, means = tasks.probabilities[seed, 0, s, a].double(), tasks.rewards[seed, 0, s, a]
                seen = torch.stack([(reward[seed] == mean).sum() for mean in means]).numpy()
                assert stats.chisquare(seen, n * (p / p.sum()).numpy()).pvalue > 1e-3
                for k in range(2):
                    assert (after[seed][reward[seed] == means[k]] == tasks.successors[seed, 0, s, a, k]).all()

    def test_a_coin_has_the_mean_as_its_bias(self) -> None:
        tasks, n = single(torch.tensor([0.3]), reward_law="bernoulli"), 20_000
        at = torch.zeros(1, 1, n, dtype=torch.int64)
        _, reward, _ = tasks.repeat(n).step(at, at, uniforms([0], "test/coins", 0, 1, n, 2))
        assert set(reward.unique().tolist()) == {0.0, 1.0}
        assert stats.binomtest(int(reward.sum()), n, 0.3).pvalue > 0.01
        assert stats.binomtest(int(reward.sum()), n, 0.32).pvalue < 0.01

    def test_gaussian_rewards_have_their_noise_and_none_is_infinite(self) -> None:
        tasks, n = single(torch.tensor([0.3]), reward_law="gaussian", noise=2.0), 20_000
        at = torch.zeros(1, 1, n, dtype=torch.int64)
        _, reward, _ = tasks.repeat(n).step(at, at, uniforms([0], "test/noise", 0, 1, n, 2))
        assert stats.kstest(reward.flatten().numpy(), stats.norm(0.3, 2).cdf).pvalue > 0.01
        assert stats.kstest(reward.flatten().numpy(), stats.norm(0.3, 2.1).cdf).pvalue < 0.01
        extreme = torch.tensor([[[0.5, 0.0]], [[0.5, LARGEST_DRAW]]])
        _, reward, _ = tasks.pick(torch.zeros(1, 1).long()).step(at[..., 0], at[..., 0], extreme[:1])
        assert reward.isfinite().all()

    def test_every_task_steps_by_its_own_tables(self) -> None:
        tasks = MDPFamily("dense").draw([0, 1], "test", 0, 3)
        state, draws = torch.arange(6).view(2, 3), uniforms([0, 1], "test/own", 0, 3, 2)
        action = torch.tensor([[0, 1, 2], [3, 4, 0]])
        after, reward, _ = tasks.step(state, action, draws)
        for seed, task in np.ndindex(2, 3):
            s, a = int(state[seed, task]), int(action[seed, task])
            total = tasks.probabilities[seed, task, s, a].cumsum(-1)
            k = int((draws[seed, task, 0] * total[-1] >= total[:-1]).sum())
            assert after[seed, task] == tasks.successors[seed, task, s, a, k]
            mean = tasks.rewards[seed, task, s, a, k]
            expected = mean + torch.special.ndtri(draws[seed, task, 1])
            torch.testing.assert_close(reward[seed, task], expected)

    def test_only_ended_episodes_start_again(self) -> None:
        tasks = GridFamily("key-to-door", size=3).draw([0], "test", 0, 200)
        state, draws = torch.full((1, 200), 7), uniforms([0], "test/restart", 0, 200)
        done = torch.arange(200)[None] % 2 == 0
        after = tasks.restart(state, done, draws)
        assert after[~done].unique().tolist() == [7]
        assert after[done].equal(tasks.reset(draws)[done])
        assert tasks.restart(state, torch.zeros_like(done), draws).equal(state)


@pytest.mark.parametrize("family", EVERY_FAMILY, ids=lambda family: family.kind)
class TestEveryFamily:
    def test_is_an_environment_with_laws_that_sum_to_one(self, family: DecisionFamily) -> None:
        tasks = family.draw([0, 1], "test", 0, 4)
        assert isinstance(family, DecisionFamily)
        assert isinstance(tasks, Environment)
        assert tasks.batch == (2, 4)
        for law in (tasks.probabilities, tasks.start):
            assert law.dtype == torch.float32
            assert (law >= 0).all()
            torch.testing.assert_close(law.sum(-1), torch.ones_like(law[..., 0]))
        assert ((tasks.successors >= 0) & (tasks.successors < tasks.n_states)).all()
        assert len(tasks.observations) == tasks.n_states
        assert not (tasks.start * tasks.terminal).any()

    def test_seeds_and_batches_do_not_depend_on_one_another(self, family: DecisionFamily) -> None:
        together, alone = family.draw([4, 1, 9], "test", 3, 5), family.draw([1], "test", 3, 5)
        assert together.rewards[1].equal(alone.rewards[0])
        assert together.successors[1].equal(alone.successors[0])
        assert not together.rewards[0].equal(alone.rewards[0])
        assert not family.draw([1], "test", 4, 5).rewards.equal(alone.rewards)
        assert not family.draw([1], "train", 3, 5).rewards.equal(alone.rewards)

    def test_what_tasks_share_takes_no_memory_of_its_own(self, family: DecisionFamily) -> None:
        def held(tasks: DecisionTasks) -> int:
            tensors = [tasks.successors, tasks.probabilities, tasks.rewards, tasks.start, tasks.terminal]
            return sum(tensor.untyped_storage().nbytes() // tensor.element_size() for tensor in tensors)

        tasks = family.draw([0], "test", 0, 8)
        picked = tasks.pick(torch.tensor([[3, 1, 1, 7, 0, 2, 5, 6]]))
        double = tasks.to(torch.float64)
        assert double.rewards.dtype == double.start.dtype == torch.float64
        assert double.successors.dtype == torch.int64
        for other in (picked, double):
            assert held(other) <= held(tasks) + 2 * tasks.rewards[0, 0].numel()
        for part in ("successors", "probabilities", "rewards", "start", "terminal"):
            assert getattr(picked, part)[0, 0].equal(getattr(tasks, part)[0, 3])
            assert getattr(double, part).equal(getattr(tasks, part).to(getattr(double, part).dtype))

    def test_a_pool_is_all_that_a_seed_ever_sees(self, family: DecisionFamily) -> None:
        pool = Pool(family, 3)
        seen = torch.cat([pool.draw([0], "train", i, 32).rewards[0] for i in range(3)])
        assert len(seen.flatten(1).unique(dim=0)) == 3
        assert not pool.draw([0], "train", 0, 32).rewards.equal(pool.draw([0], "train", 1, 32).rewards)
        together = pool.draw([2, 0], "train", 1, 32)
        assert together.rewards[1].equal(pool.draw([0], "train", 1, 32).rewards[0])


def test_an_empty_pool_is_refused() -> None:
    with pytest.raises(ValueError, match="n_tasks is 0; a pool needs at least 1"):
        Pool(BanditFamily(), 0)


def test_new_numbers_change_names_and_nothing_else() -> None:
    family = MDPFamily("tree")
    own, renumbered = (each.draw([0, 1], "test", 0, 40) for each in (family, Renumbered(family)))
    number = uniforms([0, 1], "test/numbers", 0, 40, own.n_states).argsort(-1)
    assert len(number.flatten(0, 1).unique(dim=0)) == 80
    q = optimal_values(own.to(torch.float64), GAMMA, 1e-12)
    same = optimal_values(renumbered.to(torch.float64), GAMMA, 1e-12)
    for seed, task in np.ndindex(2, 40):
        new = number[seed, task]
        torch.testing.assert_close(same[seed, task][new], q[seed, task], atol=1e-10, rtol=0)
        assert renumbered.successors[seed, task][new].equal(new[own.successors[seed, task]])
        for part in ("probabilities", "rewards", "start", "terminal"):
            assert getattr(renumbered, part)[seed, task][new].equal(getattr(own, part)[seed, task])


def test_states_that_are_not_seen_are_not_renumbered() -> None:
    with pytest.raises(ConfigError, match="these tasks hide part of the state"):
        Renumbered(GridFamily("key-to-door", size=3)).draw([0], "test", 0, 2)
