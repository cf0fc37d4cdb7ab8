"""Pretraining diversity: who knows all tasks follows Bayes' rule, and shares have the ends that they claim."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

import analyses.parallel
from algorithms.acting import follow
from algorithms.bandit import Random, Thompson
from analyses.configs import ANALYSES, PretrainingDiversity
from analyses.policy_subjects import played
from analyses.pretraining_diversity import (
    BY_HEART,
    DISTILLED,
    NEW,
    PRETRAINED,
    THOMPSON,
    TRAINING,
    posterior_sampling,
    run,
    share,
    skill,
    summarise,
)
from analyses.tables import select
from figures import pretraining_diversity
from tasks.bandits import BanditFamily
from tasks.interaction import Interaction
from tasks.rollout import random_walk
from tasks.streams import uniforms

SMOKE: PretrainingDiversity = ANALYSES["pretraining-diversity"].preset("smoke")
FAMILY = BanditFamily(n_arms=3)


def contexts(n_steps: int = 6) -> Interaction:
    return random_walk(FAMILY.draw([0, 1], "test", 0, 4), n_steps, seeds=[0, 1], purpose="test/act")


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, pd.DataFrame]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analyses.parallel, "cpu_count", lambda: 1)
        return run(replace(SMOKE, out=tmp_path_factory.mktemp("runs")))


def test_the_pool_is_weighed_by_bayes_rule() -> None:
    history, known = contexts(), uniforms([0, 1], "known", 0, 5, 3).double()
    expected = torch.zeros(2, 4, 6, 3, dtype=torch.float64)
    for seed, task, t in product(range(2), range(4), range(6)):
        weight = torch.ones(5, dtype=torch.float64)
        for j in range(t):
            mean = known[seed, :, history.action[seed, task, j]]
            weight = weight * (mean if history.reward[seed, task, j] else 1 - mean)
        expected[seed, task, t].scatter_add_(0, known[seed].argmax(-1), weight / weight.sum())
    found = posterior_sampling(history, known)
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)
    twice = posterior_sampling(history, torch.cat([known, known], 1))
    torch.testing.assert_close(twice, expected, atol=1e-10, rtol=0)


def test_who_knows_one_task_plays_its_best_arm_whatever_comes() -> None:
    known = torch.tensor([[[0.2, 0.9, 0.3]], [[0.5, 0.1, 0.4]]], dtype=torch.float64)
    law = posterior_sampling(contexts(), known)
    best = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(law, best[:, None, None].expand_as(law), atol=1e-10, rtol=0)


def test_who_knows_all_tasks_follows_thompsons_law() -> None:
    """A lattice in place of U(0, 1)^3 is as good up to its mesh, ties won by each arm as often; few tasks are not."""
    history = contexts().each(lambda x: x[:1])
    middles = (torch.arange(20, dtype=torch.float64) + 0.5) / 20
    orders = 1e-6 * torch.tensor(list(permutations(range(3))), dtype=torch.float64)
    known = (torch.cartesian_prod(middles, middles, middles)[:, None] + orders).flatten(0, 1)[None]
    law = follow(Thompson(), history).laws.double()
    assert (posterior_sampling(history, known) - law).abs().max() < 0.005
    assert (posterior_sampling(history, known[:, ::9000]) - law).abs().max() > 0.2


def test_a_share_of_everything_is_certain_and_intervals_are_the_delta_methods() -> None:
    attainable = torch.tensor([[1.0, 2.0, 3.0, 6.0]], dtype=torch.float64)
    torch.testing.assert_close(torch.stack(share(0.5 * attainable, attainable)), torch.full((3, 1), 0.5).double())
    draws = uniforms([0], "share", 0, 4000, 2).double()
    gain, attainable = draws[..., 0] * draws[..., 1], draws[..., 1] + 0.5
    value, low, high = (float(x) for x in share(gain, attainable))
    random = np.random.default_rng(0).integers(0, 4000, (1000, 4000))
    again = gain[0].numpy()[random].mean(1) / attainable[0].numpy()[random].mean(1)
    assert value == pytest.approx(float(gain.mean() / attainable.mean()), abs=1e-12)
    assert (high - low) / 2 == pytest.approx(1.96 * again.std(), rel=0.1)


def test_random_play_has_no_skill_and_the_best_arm_has_all() -> None:
    tasks = FAMILY.draw([0], "test", 0, 500)
    (row,) = skill(played(Random(), tasks, 20, [0]), tasks, [0]).itertuples()
    assert row.low < 0 < row.high
    best = tasks.mean_rewards[..., 0, :].argmax(-1)[..., None]
    history = random_walk(tasks, 20, purpose="test/act")
    (row,) = skill(replace(history, action=best.expand(-1, -1, 20)), tasks, [0]).itertuples()
    assert row.value == pytest.approx(1, abs=1e-5)


def test_tables_hold_every_pool_and_by_heart_only_where_there_is_one(tables: Mapping[str, pd.DataFrame]) -> None:
    skills, laws = tables["skill"], tables["laws"]
    for name, target in product((DISTILLED, PRETRAINED), (TRAINING, NEW)):
        own = select(skills, subject=name, target=target)
        assert own["pool"].value_counts(dropna=False).to_dict() == {1: 2, 8: 2, pd.NA: 2}
    assert set(select(laws, learner=BY_HEART)["pool"]) == set(SMOKE.pools)
    assert laws["value"].min() >= 0
    assert select(skills, subject=THOMPSON)["value"].notna().all()


def test_it_is_said_and_drawn(tables: Mapping[str, pd.DataFrame]) -> None:
    said = summarise(tables)
    assert said.count("unlimited") == 2
    assert said.count("8 tasks") == 2
    assert isinstance(pretraining_diversity.draw(tables), Figure)
