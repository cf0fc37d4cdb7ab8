"""Markov reward processes: the equations their answers obey, and the structure each family promises."""

from dataclasses import fields, replace

import pytest
import torch
from scipy import stats
from torch import Tensor

from tasks.layout import transition_layout
from tasks.markov_reward import FAMILIES, REWARDED, MarkovRewardProcess, TaskFamily, evaluation_prompt
from tasks.streams import uniforms

LARGEST_DRAW = 1 - 2.0**-24


def sample(family: TaskFamily, n: int = 50, seeds: int = 2, purpose: str = "test") -> MarkovRewardProcess:
    """Processes in float64 whose laws sum to one in float64 as well."""
    process = family.sample(range(seeds), purpose, 0, n)
    double = {f.name: getattr(process, f.name).double() for f in fields(process) if f.name != "gamma"}
    for law in ("initial", "transition"):
        double[law] = double[law] / double[law].sum(-1, keepdim=True)
    return MarkovRewardProcess(**double, gamma=process.gamma)


def sized_loops() -> TaskFamily:
    return TaskFamily("loop", n_states=9, min_states=4)


def bellman_residual(process: MarkovRewardProcess, values: Tensor) -> Tensor:
    next_values = (process.transition @ values[..., None])[..., 0]
    return (values - process.reward - process.gamma * next_values).abs().max()


@pytest.mark.parametrize("name", FAMILIES)
class TestEquations:
    def test_values_satisfy_the_bellman_equation(self, name: str) -> None:
        process = sample(TaskFamily(name))
        assert bellman_residual(process, process.values) < 1e-12
        assert bellman_residual(process, replace(process, gamma=0.8).values) > 0.01

    def test_stationary_distribution_is_invariant(self, name: str) -> None:
        process = sample(TaskFamily(name))
        d = process.stationary
        torch.testing.assert_close(d.sum(-1), torch.ones_like(d[..., 0]), rtol=0, atol=1e-12)
        assert (d > 0).all()
        assert ((d[..., None, :] @ process.transition)[..., 0, :] - d).abs().max() < 1e-12
        assert ((d[..., None, :] @ process.transition.mT)[..., 0, :] - d).abs().max() > 0.01

    def test_laws_sum_to_one(self, name: str) -> None:
        process = TaskFamily(name).sample([0], "test", 0, 20)
        for law in (process.initial, process.transition):
            assert (law >= 0).all()
            torch.testing.assert_close(law.sum(-1), torch.ones_like(law[..., 0]))

    def test_seeds_do_not_depend_on_one_another(self, name: str) -> None:
        family = TaskFamily(name, representable=True)
        together, alone = family.sample([4, 1, 9], "test", 3, 5), family.sample([1], "test", 3, 5)
        for part in ("initial", "transition", "reward", "features"):
            assert getattr(together, part)[1].equal(getattr(alone, part)[0])
            assert not getattr(together, part)[0].equal(getattr(alone, part)[0])

    def test_representable_values_lie_in_the_span_of_the_features(self, name: str) -> None:
        def missed(representable: bool) -> Tensor:
            process = sample(TaskFamily(name, representable=representable))
            values = process.values[..., None]
            fit = process.features @ torch.linalg.lstsq(process.features, values).solution
            return ((fit - values).norm(dim=-2) / values.norm(dim=-2)).median()

        assert missed(True) < 1e-5  # sampled in float32
        assert missed(False) > 0.1


class TestRollout:
    def test_frequencies_match_the_law(self) -> None:
        process = sample(TaskFamily("random", n_states=5), n=1, seeds=1)
        states = process.rollout(uniforms([0], "test/rollout", 0, 1, 20_000))[0, 0]
        counts = torch.zeros(5, 5).index_put((states[:-1], states[1:]), torch.tensor(1.0), accumulate=True).numpy()
        law = process.transition[0, 0].numpy()
        expected = counts.sum(1, keepdims=True) * law
        assert stats.chisquare(counts, expected, axis=1).pvalue.min() > 0.01
        wrong = counts.sum(1, keepdims=True) * (0.95 * law + 0.05 / 5)
        assert stats.chisquare(counts, wrong, axis=1).pvalue.min() < 0.01

    def test_starts_follow_the_initial_law(self) -> None:
        process = sample(TaskFamily("random", n_states=5), n=1, seeds=1).repeat(5000)
        starts = process.rollout(uniforms([0], "test/starts", 0, 1, 5000, 1)).flatten()
        counts = torch.bincount(starts, minlength=5).numpy()
        assert stats.chisquare(counts, 5000 * process.initial[0, 0, 0].numpy()).pvalue > 0.01

    @pytest.mark.parametrize("family", [TaskFamily(), TaskFamily("loop"), sized_loops()], ids=lambda f: f.name)
    @pytest.mark.parametrize("draw", [0.0, LARGEST_DRAW])
    def test_extreme_draws_never_take_an_impossible_step(self, family: TaskFamily, draw: float) -> None:
        process = family.sample([0], "test", 0, 500)
        states = process.rollout(torch.full((1, 500, 12), draw))
        assert (process.initial.gather(-1, states[..., :1]) > 0).all()
        rows = process.transition.take_along_dim(states[..., :-1, None], -2)
        assert (rows.gather(-1, states[..., 1:, None]) > 0).all()

    def test_every_process_follows_its_own_law_and_draws(self) -> None:
        process, draws = sample(TaskFamily(), n=4), uniforms([0, 1], "test/rollout", 0, 4, 30)
        states = process.rollout(draws)
        picked = process.pick(torch.tensor([[2], [0]])).rollout(torch.stack([draws[0, 2:3], draws[1, 0:1]]))
        assert picked.equal(torch.stack([states[0, 2:3], states[1, 0:1]]))
        repeated = process.repeat(2).rollout(torch.stack([draws, draws.flip(-1)], 2))
        assert repeated[:, :, 0].equal(states)
        assert repeated[:, :, 1].equal(process.rollout(draws.flip(-1)))


class TestBoyan:
    def test_every_state_but_the_last_two_leads_one_or_two_ahead(self) -> None:
        transition = sample(TaskFamily(n_states=6)).transition
        for i in range(4):
            assert set(transition[..., i, :].nonzero()[:, -1].tolist()) == {i + 1, i + 2}
        assert (transition[..., 4, 5] == 1).all()
        assert (transition[..., 5, :] > 0).all()

    def test_one_size_only(self) -> None:
        with pytest.raises(ValueError, match="one size"):
            TaskFamily(min_states=4).sample([0], "test", 0, 50)


class TestLoop:
    def test_is_a_ring_without_self_loops(self) -> None:
        process = sample(sized_loops())
        assert (process.transition.diagonal(dim1=-2, dim2=-1) == 0).all()
        sizes = (process.initial > 0).sum(-1)
        assert sizes.unique().tolist() == [4, 5, 6, 7, 8, 9]
        for transition, size in zip(process.transition.flatten(0, 1), sizes.flatten().tolist(), strict=True):
            inside = torch.arange(size)
            assert (transition[inside, (inside + 1) % size] > 0).all()
            assert (transition[:size, size:] == 0).all()

    def test_padding_states_are_never_visited(self) -> None:
        process = sample(sized_loops())
        sizes = (process.initial > 0).sum(-1, keepdim=True)
        assert (process.rollout(uniforms([0, 1], "test/rollout", 0, 50, 200)) < sizes).all()
        assert (process.stationary.abs() > 1e-12).sum(-1, keepdim=True).equal(sizes)

    def test_threshold_sets_the_share_of_shortcuts(self) -> None:
        def links(threshold: float) -> float:
            family = TaskFamily("loop", threshold=(threshold, threshold))
            return (sample(family).transition > 0).double().mean().item()

        assert links(0.9) < 0.25 < 0.75 < links(0.1)


@pytest.mark.parametrize("component", ["kernel", "features", "reward"])
@pytest.mark.parametrize("name", ["boyan-chain", "loop"])
class TestFixed:
    PARTS = ("transition", "features", "reward")

    def test_component_is_one_for_all_tasks_and_the_others_are_not(self, name: str, component: str) -> None:
        process = TaskFamily(name, fixed=(component,)).sample([0, 1], "test", 0, 4)
        later = TaskFamily(name, fixed=(component,)).sample([0, 1], "evaluate", 3, 4)
        for part in self.PARTS:
            tensor = getattr(process, part)
            same = part == ("transition" if component == "kernel" else component)
            assert tensor[:, 0].equal(tensor[:, 1]) == same
            assert tensor.equal(getattr(later, part)) == same
            assert not tensor[0].equal(tensor[1])


@pytest.mark.parametrize("family", [TaskFamily(n_states=8), sized_loops()], ids=lambda f: f.name)
class TestReward:
    def test_sparse_rewards_are_dense_ones_of_which_few_are_kept_and_at_least_one(self, family: TaskFamily) -> None:
        dense, sparse = sample(family, n=500), sample(replace(family, reward="sparse"), n=500)
        kept, inside = sparse.reward != 0, dense.initial > 0
        torch.testing.assert_close(sparse.reward, dense.reward * kept, rtol=0, atol=0)
        assert (kept & inside).any(-1).all()
        # one is kept where the lot would keep none, which happens with probability (1 - REWARDED)^states
        states = inside.sum(-1)
        expected = (REWARDED + (1 - REWARDED) ** states / states).mean().item()
        share = (kept & inside).sum(-1) / states
        assert share.mean().item() == pytest.approx(expected, abs=0.02)
        assert share.unique().numel() > 4

    def test_terminal_rewards_are_the_dense_ones_of_the_last_states(self, family: TaskFamily) -> None:
        dense, terminal = sample(family), sample(replace(family, reward="terminal"))
        last = (dense.initial > 0).sum(-1, keepdim=True) - 1
        assert terminal.reward.gather(-1, last).equal(dense.reward.gather(-1, last))
        assert ((terminal.reward != 0).sum(-1) == 1).all()

    @pytest.mark.parametrize("reward", ["sparse", "terminal"])
    def test_all_else_is_as_with_dense_rewards(self, family: TaskFamily, reward: str) -> None:
        dense, other = sample(family), sample(replace(family, reward=reward))
        for part in ("initial", "transition", "features"):
            assert getattr(dense, part).equal(getattr(other, part))
        assert bellman_residual(other, other.values) < 1e-12
        assert bellman_residual(other, dense.values) > 0.01

    def test_a_fixed_reward_is_sparse_in_the_same_states(self, family: TaskFamily) -> None:
        process = sample(replace(family, fixed=("kernel", "reward"), reward="sparse"), n=4)
        assert process.reward.equal(process.reward[:, :1].expand_as(process.reward))
        assert not process.reward[0].equal(process.reward[1])


class TestFeatureRank:
    def test_features_are_projections_on_a_subspace_of_each_task(self) -> None:
        free, confined = sample(TaskFamily(d_features=4)), sample(TaskFamily(d_features=4, feature_rank=2))
        values = torch.linalg.svdvals(confined.features)
        assert (values[..., 1] > 0.1).all()
        assert values[..., 2:].max() < 1e-5  # sampled in float32
        removed = free.features - confined.features
        assert (removed.mT @ removed).diagonal(dim1=-2, dim2=-1).sum(-1).min() > 0.1
        assert (removed @ confined.features.mT).abs().max() < 1e-5
        # another task, another subspace
        assert torch.linalg.svdvals(confined.features.flatten(1, 2))[..., -1].min() > 1

    def test_the_full_rank_leaves_them_as_they_are(self) -> None:
        free, full = sample(TaskFamily(d_features=4)), sample(TaskFamily(d_features=4, feature_rank=4))
        torch.testing.assert_close(full.features, free.features, rtol=0, atol=1e-5)

    def test_rewards_and_kernel_do_not_depend_on_it(self) -> None:
        free, confined = sample(TaskFamily()), sample(TaskFamily(feature_rank=1))
        assert free.reward.equal(confined.reward)
        assert free.transition.equal(confined.transition)

    def test_fixed_features_share_the_subspace(self) -> None:
        features = sample(TaskFamily(fixed=("features",), feature_rank=2)).features
        assert features.equal(features[:, :1].expand_as(features))


def test_a_representable_reward_is_fixed_only_with_the_kernel_and_the_features_it_follows_from() -> None:
    process = sample(TaskFamily(representable=True, fixed=("kernel", "features", "reward")))
    assert torch.equal(process.reward, process.reward[:, :1].expand_as(process.reward))
    with pytest.raises(ValueError, match="fix kernel and features too"):
        TaskFamily(representable=True, fixed=("reward",))


def test_the_evaluation_prompt_token_by_token() -> None:
    process = TaskFamily(n_states=5, d_features=2).sample([0, 1], "test", 0, 3)
    draws = uniforms([0, 1], "test/rollout", 0, 3, 8)
    prompt = evaluation_prompt(process, draws, transition_layout(2, discount=0.7, memory=True))
    states = process.rollout(draws)
    assert prompt.queries.tolist() == [7, 8, 9, 10, 11]
    for seed in range(2):
        for task in range(3):
            path, phi, reward = states[seed, task], process.features[seed, task], process.reward[seed, task]
            for j in range(7):
                token = [*phi[path[j]].tolist(), *(0.7 * phi[path[j + 1]]).tolist(), reward[path[j]].item(), 0.0]
                assert prompt.tokens[seed, task, j].tolist() == pytest.approx(token)
            for state in range(5):
                assert prompt.tokens[seed, task, 7 + state].tolist() == [*phi[state].tolist(), 0, 0, 0, 0]
    torch.testing.assert_close(prompt.answers[..., 0], process.values)
    torch.testing.assert_close(prompt.weights, process.stationary)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"name": "boyan"}, "'boyan'; allowed: boyan-chain"),
        ({"fixed": ("rewards",)}, "'rewards'; allowed: kernel, features, reward"),
        ({"n_states": 2}, "at least 3"),
        ({"gamma": 1.0}, "gamma < 1"),
        ({"reward": "sparce"}, "'sparce'; allowed: dense, sparse, terminal"),
        ({"reward": "terminal", "representable": True}, "cannot be terminal; allowed: dense"),
        ({"feature_rank": 0}, "feature_rank is 0; allowed: 1 to d_features, 4"),
        ({"feature_rank": 5}, "feature_rank is 5; allowed: 1 to d_features, 4"),
        ({"name": "loop", "min_states": 11}, "min_states is 11; allowed: 1 to n_states, 10"),
    ],
    ids=str,
)
def test_impossible_families_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TaskFamily(**wrong)
