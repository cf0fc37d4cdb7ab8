"""Markov decision processes: the structure that each family promises, and how much a myopic learner gets right."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tasks.arrival import OnArrival
from tasks.bandits import BanditFamily
from tasks.decision import DecisionFamily, DecisionTasks, optimal_values
from tasks.gridworlds import GridFamily
from tasks.mdps import SHAPES, MDPFamily, myopia
from tasks.rollout import random_walk


def draw(family: MDPFamily, n: int = 50) -> DecisionTasks:
    return family.draw([0, 1], "test", 0, n)


def each(tasks: DecisionTasks) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Successors, probabilities, rewards [states, actions, k] and start [states] of every task."""
    tables = (tasks.successors, tasks.probabilities, tasks.rewards, tasks.start)
    return list(zip(*(table.flatten(0, 1) for table in tables), strict=True))


def distances(neighbours: Callable[[int], list[int]], start: int) -> dict[int, int]:
    """Steps from the start to every state that can be reached."""
    steps, front = {start: 0}, [start]
    while front:
        state = front.pop(0)
        for after in neighbours(state):
            if after not in steps:
                steps[after] = steps[state] + 1
                front.append(after)
    return steps


class TestMyopia:
    """The table of the module, within what 300 tasks tell: (gain, agreement, random), each to .03."""

    @pytest.mark.parametrize(
        ("family", "expected"),
        [
            ("dense", (0.98, 0.89, 0.20)),
            ("chain", (0.05, 0.41, 1 / 3)),
            ("tree", (0.16, 0.38, 1 / 3)),
            ("ring", (0.0, 4 / 7, 4 / 7)),
            (OnArrival(MDPFamily("ring", 7, slip=(0.0, 0.0))), (0.81, 5 / 7, 4 / 7)),
            (GridFamily("dark-room", 5), (0.52, 0.46, 0.33)),
            (GridFamily("dark-room-hard", 5), (0.42, 0.73, 0.67)),
        ],
    )
    def test_of_each_family(self, family: str | DecisionFamily, expected: tuple[float, float, float]) -> None:
        drawn = MDPFamily(family) if isinstance(family, str) else family
        seen = myopia(drawn.draw([0], "test", 0, 300), 0.9)
        assert (seen.gain, seen.agreement, seen.random) == pytest.approx(expected, abs=0.03)

    def test_a_bandit_is_nothing_else(self) -> None:
        seen = myopia(BanditFamily(n_arms=4).draw([0], "test", 0, 50), 0.9)
        assert (seen.gain, seen.agreement, seen.random) == pytest.approx((1, 1, 0.25), abs=1e-9)

    def test_a_discount_of_zero_is_myopic(self) -> None:
        assert myopia(draw(MDPFamily("dense")), 0.0).gain == pytest.approx(1, abs=1e-9)


class TestRing:
    def test_the_actions_lead_to_the_two_neighbours_of_a_hidden_order(self) -> None:
        tasks = draw(MDPFamily())
        assert tasks.n_actions * tasks.n_states == 14
        for successors, probabilities, _, _ in each(tasks):
            assert successors[:, 0].equal(successors[:, 1].flip(-1))  # a slip is the other action
            neighbours = [set(row.tolist()) for row in successors[:, 0]]
            for state, pair in enumerate(neighbours):
                assert len(pair) == 2
                assert all(state in neighbours[other] for other in pair)
            steps = distances(lambda state, pairs=neighbours: list(pairs[state]), 0)
            assert sorted(steps.values()) == [0, 1, 1, 2, 2, 3, 3]
            assert (probabilities == probabilities[0, 0]).all()
            assert 0 <= probabilities[0, 0, 1] <= 0.2
        orders = torch.stack([successors[0, 0, :].sort().values for successors, *_ in each(tasks)])
        assert len(orders.unique(dim=0)) == 15  # any two of the six other states

    def test_which_action_is_which_differs_between_states_and_slips_between_tasks(self) -> None:
        tasks = draw(MDPFamily(n_states=3, slip=(0.1, 0.5)), 2000)
        ahead = tasks.successors[..., 0, 0]
        clockwise = ((ahead - torch.arange(3)) % 3 == 1).float()
        assert (clockwise.mean((0, 1)) - 0.5).abs().max() < 0.03
        agree = [(clockwise[..., s] == clockwise[..., (s + 1) % 3]).float().mean().item() for s in range(3)]
        assert agree == pytest.approx([0.5, 0.5, 0.5], abs=0.03)
        slip = tasks.probabilities[..., 0, 0, 1]
        assert slip.min() < 0.101
        assert slip.max() > 0.499
        assert slip.mean().item() == pytest.approx(0.3, abs=0.01)

    def test_leaving_the_goal_is_worth_one_whatever_the_action(self) -> None:
        tasks = draw(MDPFamily(), 2000)
        worth = tasks.mean_rewards
        assert worth.sum((-2, -1)).unique().tolist() == [2.0]
        assert worth.amax(-1).equal(worth.amin(-1))
        goal = worth[..., 0].argmax(-1).flatten()
        assert (torch.bincount(goal, minlength=7) / len(goal) - 1 / 7).abs().max() < 0.02
        q = optimal_values(tasks, 0.9)
        assert q.amax(-1).argmax(-1).flatten().equal(goal)

    def test_no_episode_ends(self) -> None:
        assert not random_walk(draw(MDPFamily()), 100, seeds=[0, 1], purpose="test").done.any()


class TestTree:
    @pytest.mark.parametrize("states", [7, 15, 31])
    def test_is_a_binary_tree_under_hidden_numbers_and_labels(self, states: int) -> None:
        tasks = draw(MDPFamily("tree", n_states=states), 20)
        for successors, probabilities, rewards, start in each(tasks):
            assert (probabilities == 1).all()
            root = int(start.argmax())
            assert start[root] == 1
            steps = distances(lambda state, table=successors: table[state, :, 0].tolist(), root)
            depths = sorted(steps.values())
            assert depths == [depth for depth in range(max(depths) + 1) for _ in range(2**depth)]
            goal = {int(successors[s, a, 0]) for s, a, _ in rewards.nonzero().tolist()}
            assert len(goal) == 1
            assert steps[goal.pop()] == max(depths)
            assert rewards.sum() == 1  # there is one way to the goal
            for state in range(states):
                back = [a for a in range(3) if steps[int(successors[state, a, 0])] < steps[state]]
                assert len(back) == (state != root)
        parents = tasks.start.argmax(-1).flatten()
        assert len(parents.unique()) > states / 2

    def test_labels_have_no_preferred_order(self) -> None:
        tasks = draw(MDPFamily("tree", n_states=3), 2000)
        reward_at = tasks.rewards[..., 0].amax(-2).argmax(-1).flatten()
        assert (torch.bincount(reward_at, minlength=3) / len(reward_at) - 1 / 3).abs().max() < 0.03

    def test_an_episode_ends_at_the_goal_with_its_reward(self) -> None:
        tasks = draw(MDPFamily("tree", n_states=7))
        history = random_walk(tasks, 200, seeds=[0, 1], purpose="test")
        assert history.done.any()
        assert history.reward.equal(history.done.float())
        root = tasks.start.argmax(-1)[..., None].expand(-1, -1, 199)
        assert history.observation[..., 1:][history.done[..., :-1]].equal(root[history.done[..., :-1]])


class TestChain:
    def test_is_banded_under_hidden_numbers_and_ends_at_the_far_end(self) -> None:
        for successors, probabilities, rewards, start in each(draw(MDPFamily("chain", n_states=6, n_actions=4), 20)):
            steps = distances(lambda state, table=successors: table[state].flatten().tolist(), int(start.argmax()))
            assert sorted(steps.values()) == list(range(6))
            for state in range(6):
                reached = [steps[after] for after in successors[state].flatten().tolist()]
                assert max(abs(after - steps[state]) for after in reached) <= 1
            assert {steps[int(successors[s, a, k])] for s, a, k in rewards.nonzero().tolist()} == {5}
            assert {steps[s] for s, _, _ in rewards.nonzero().tolist()} == {4}
            assert not probabilities[:, 0].equal(probabilities[:, 1])

    def test_laws_are_uniform_over_the_simplex(self) -> None:
        law = draw(MDPFamily("chain"), 200).probabilities.flatten(0, -2)
        assert law.mean(0).tolist() == pytest.approx([1 / 3] * 3, abs=0.01)
        assert law.var(0).tolist() == pytest.approx([1 / 18] * 3, abs=0.003)  # Dirichlet(1, 1, 1)


class TestDense:
    def test_is_that_of_duan_et_al(self) -> None:
        tasks = draw(MDPFamily("dense"), 200)
        assert (tasks.n_states, tasks.n_actions, tasks.horizon) == (10, 5, 10)
        assert (tasks.reward_law, tasks.noise) == ("gaussian", 1.0)
        assert tasks.probabilities.var(correction=0).item() == pytest.approx(9 / 1100, rel=0.05)  # Dirichlet(1^10)
        means = tasks.mean_rewards
        assert (means.mean().item(), means.std().item()) == pytest.approx((1, 1), abs=0.03)
        history = random_walk(tasks, 100, seeds=[0, 1], purpose="test")
        assert history.reward.sum(-1).mean().item() == pytest.approx(100, abs=3)  # the published random return
        assert history.done[0, 0].nonzero().flatten().tolist() == list(range(9, 100, 10))
        assert not history.observation[..., ::10].any()


@pytest.mark.parametrize("kind", SHAPES)
def test_sizes_can_be_chosen(kind) -> None:
    usual = MDPFamily(kind)
    assert (draw(usual, 1).n_states, draw(usual, 1).n_actions) == SHAPES[kind][:2]
    assert draw(MDPFamily(kind, n_states=31), 1).n_states == 31


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kind": "rings"}, "did you mean 'ring'"),
        ({"n_states": 0}, "0 states and 2 actions; allowed: at least 3 and 2"),
        ({"n_actions": 3}, "n_actions is 3; a ring has 2"),
        ({"kind": "tree", "n_states": 8}, "a full binary tree has 7 or 15"),
        ({"kind": "tree", "n_states": 14}, "a full binary tree has 7 or 15"),
        ({"slip": (0.3, 0.2)}, "slip is"),
    ],
    ids=str,
)
def test_impossible_families_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MDPFamily(**wrong)
