"""Twins: pairs are of different seeds, nobody reads itself, and turning an arm's coins over leaves the others alone."""

from collections.abc import Mapping
from dataclasses import replace

import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

import analyses.parallel
from analyses.configs import ANALYSES, TwinTest
from analyses.in_context_improvement import DISTILLED, PRETRAINED
from analyses.tables import select
from analyses.twin_test import BETWEEN, UNTRAINED, function, run, summarise, turned_over
from figures import twin_test
from models.networks import initial_weights
from models.policy import PolicyTransformer
from models.policy_config import PolicyConfig
from probes.contexts import designed
from tasks.bandits import BanditFamily
from tasks.errors import ConfigError
from tasks.interaction import Interaction

SMOKE: TwinTest = ANALYSES["twin-test"].preset("smoke")
NETWORK = PolicyConfig(1, 3, 6, d_model=8, n_layers=1, d_mlp=8)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, pd.DataFrame]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analyses.parallel, "cpu_count", lambda: 1)
        return run(replace(SMOKE, out=tmp_path_factory.mktemp("runs")))


def contexts() -> Interaction:
    return designed(BanditFamily(n_arms=3), 6, 4, "test")


def policy(seeds: list[int]) -> PolicyTransformer:
    return PolicyTransformer(NETWORK, initial_weights(NETWORK, seeds))


def test_one_arms_coins_are_turned_over() -> None:
    given = contexts()
    other = turned_over(given)
    moved = other.reward != given.reward
    torch.testing.assert_close(other.reward[moved], 1 - given.reward[moved], atol=0, rtol=0)
    for task in range(12):
        arms = given.action[0, task][moved[0, task]].unique()
        assert len(arms) <= 1
        assert moved[0, task].sum() == (torch.isin(given.action[0, task], arms)).sum()


def test_function_compares_different_seeds_and_finds_twins_that_are_one_network() -> None:
    """The same two networks under both names: of one each, they are as far apart as seeds are."""
    table = function({DISTILLED: (policy([4, 7]), [4, 7]), PRETRAINED: (policy([4, 7]), [4, 7])}, contexts())
    pairs = select(table, metric="kl").groupby(["target", "subject"])["value"]
    assert set(pairs.size()[:, BETWEEN]) == {2}
    assert set(pairs.size()[:, DISTILLED]) == {1}
    for kind in ("skewed", "switched", "thompson"):
        means = pairs.mean()[kind]
        assert means[BETWEEN] == pytest.approx(means[DISTILLED], rel=1e-5)
        assert means[DISTILLED] > 0


def test_nobody_reads_itself_or_who_began_as_it_did(tables: Mapping[str, pd.DataFrame]) -> None:
    read = select(tables["streams"], metric="read")
    assert (read["seed"] != read["of"]).all()
    assert set(read["learner"]) == {DISTILLED, PRETRAINED, UNTRAINED}
    assert read.groupby(["target", "of", "learner", "layer"]).size().to_dict() == {
        (target, of, reader, 1): 2 if reader == UNTRAINED else 1
        for target in (DISTILLED, PRETRAINED)
        for of in (0, 1)
        for reader in (DISTILLED, PRETRAINED, UNTRAINED)
    }


def test_swaps_of_everything_arrive_after_the_last_layer(tables: Mapping[str, pd.DataFrame]) -> None:
    last = select(tables["swaps"], metric="way", layer=SMOKE.n_layers)
    assert select(last, target="everything")["value"].tolist() == pytest.approx([1.0] * 4, abs=1e-5)
    assert select(last, target="memory")["value"].tolist() == pytest.approx([0.0] * 4, abs=1e-5)


def test_it_is_said_and_drawn(tables: Mapping[str, pd.DataFrame]) -> None:
    said = summarise(tables)
    assert all(name in said for name in (DISTILLED, PRETRAINED, BETWEEN, UNTRAINED, "ln p*"))
    assert isinstance(twin_test.draw(tables), Figure)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"contexts": 2}, "contexts is 2; allowed: at least 7"),
        ({"seeds": 1}, "seeds is 1; allowed: at least 2"),
        ({"n_steps": 5}, "n_steps is 5; allowed: at least 6"),
    ],
)
def test_settings_without_an_answer_are_refused_before_training(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(replace(SMOKE, **settings))
