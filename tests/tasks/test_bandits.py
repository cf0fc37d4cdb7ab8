"""Bandits: what their means and rewards are drawn from, and what is the same in all of them."""

import numpy as np
import pytest
import torch
from scipy import stats

from tasks.bandits import KINDS, BanditFamily, bandits, best_arms
from tasks.decision import optimal_values
from tasks.rollout import random_walk


def means(family: BanditFamily, n: int = 4000, purpose: str = "test") -> np.ndarray:
    """[n, arms]"""
    return family.draw([0], purpose, 0, n).mean_rewards[0, :, 0].numpy()


class TestMeans:
    @pytest.mark.parametrize("kind", ["bernoulli", "gaussian"])
    def test_are_uniform_unless_a_prior_says_otherwise(self, kind) -> None:
        usual, skewed = (means(BanditFamily(kind, prior=prior)).ravel() for prior in ((1.0, 1.0), (2.0, 5.0)))
        assert stats.kstest(usual, stats.uniform.cdf).pvalue > 0.01
        assert stats.kstest(skewed, stats.beta(2, 5).cdf).pvalue > 0.01
        assert stats.kstest(skewed, stats.beta(2, 4.8).cdf).pvalue < 0.01

    @pytest.mark.parametrize("share", [0.0, 0.05, 0.95, 1.0])
    def test_the_odd_arms_are_the_better_half_in_that_share_of_tasks(self, share: float) -> None:
        drawn, plain = means(BanditFamily(n_arms=7, odd_share=share)), means(BanditFamily(n_arms=7))
        odd, even = drawn[:, 1::2], drawn[:, ::2]
        odd_better = odd.min(1) > 0.5
        assert (odd_better | (even.min(1) >= 0.5)).all()
        assert ((odd.max(1) < 0.5) | odd_better).all()
        assert odd_better.mean() == pytest.approx(share, abs=0.01)
        np.testing.assert_allclose(2 * drawn % 1, plain, rtol=0, atol=1e-6)

    def test_linear_ones_lie_in_the_span_of_features_that_all_tasks_share(self) -> None:
        family = BanditFamily("linear", n_arms=10, d_features=2)
        drawn, phi = means(family), family.features.numpy()
        fit = np.linalg.lstsq(phi, drawn.T, rcond=None)[0]
        assert np.abs(phi @ fit - drawn.T).max() < 1e-5
        assert stats.kstest(fit.ravel(), stats.norm(0, 0.5**0.5).cdf).pvalue > 0.01
        other = BanditFamily("linear", n_arms=10, d_features=2, arms_seed=1)
        assert not family.features.equal(other.features)
        many = BanditFamily("linear", n_arms=4000, d_features=5).features
        assert stats.kstest(many.flatten().numpy(), stats.norm(0, 0.2**0.5).cdf).pvalue > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_rewards_are_coins_or_gaussian_around_the_means(kind: str) -> None:
    tasks = BanditFamily(kind, n_arms=4, noise=0.5).draw([0, 1], "test", 0, 1)
    history = random_walk(tasks.pick(torch.zeros(1, 2000).long()), 5, seeds=[0, 1], purpose="test")
    assert not history.observation.any()
    assert not history.done.any()
    for seed, arm in np.ndindex(2, 4):
        rewards = history.reward[seed][history.action[seed] == arm]
        mean = tasks.mean_rewards[seed, 0, 0, arm].item()
        if kind == "bernoulli":
            assert set(rewards.tolist()) == {0.0, 1.0}
            assert stats.binomtest(int(rewards.sum()), len(rewards), mean).pvalue > 1e-3
        else:
            assert stats.kstest(rewards.numpy(), stats.norm(mean, 0.5).cdf).pvalue > 1e-3


def test_the_best_arm_is_optimal_whatever_the_discount() -> None:
    tasks = BanditFamily().draw([0, 1], "test", 0, 50)
    for gamma in (0.0, 0.5):
        assert best_arms(tasks).equal(optimal_values(tasks, gamma)[..., 0, :].argmax(-1))


def test_bandits_of_given_means() -> None:
    given = torch.tensor([[[0.2, 0.9], [0.7, 0.1]]])
    assert bandits(given).mean_rewards[..., 0, :].equal(given)
    assert best_arms(bandits(given)).tolist() == [[1, 0]]
    assert bandits(given.double(), noise=0.1).start.dtype == torch.float64


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kind": "bernouli"}, "did you mean 'bernoulli'"),
        ({"n_arms": 1}, "n_arms is 1; allowed: at least 2"),
        ({"noise": -1.0}, "noise is -1.0"),
        ({"prior": (0.0, 1.0)}, "must be above 0"),
        ({"odd_share": 1.5}, "odd_share is 1.5; allowed: 0 to 1"),
        ({"kind": "linear", "odd_share": 0.5}, "leave prior and odd_share unset"),
        ({"kind": "linear", "prior": (2.0, 1.0)}, "leave prior and odd_share unset"),
    ],
    ids=str,
)
def test_impossible_families_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BanditFamily(**wrong)
