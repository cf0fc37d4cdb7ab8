"""Policies are examined by the rule of predictions: a planted law is named, and one that reads no context is not."""

import json

import pytest
import torch

from algorithms.acting import follow
from algorithms.acting_bank import acting_learner
from analyses.answer import render
from analyses.examine_laws import examine_laws
from analyses.inspect_policy import report
from models.config import ConfigError
from models.networks import initial_weights
from models.policy import PolicyTransformer
from models.policy_config import PolicyConfig
from probes.contexts import KINDS, designed, skewed_laws
from tasks.bandits import BanditFamily

FAMILY = BanditFamily(n_arms=3)
RIVALS = ("random", "empirical-mean", "constant-step", "win-stay-lose-shift")


def contexts(n_steps=16, n=8):
    return designed(FAMILY, n_steps, n, "test").each(lambda x: x.double() if x.is_floating_point() else x)


def test_designed_contexts_are_of_every_kind_in_turn() -> None:
    history = contexts(n_steps=60, n=30)
    assert history.batch == (1, 30 * len(KINDS))
    counts = torch.nn.functional.one_hot(history.action, 3).double().mean(-2)
    most = counts.amax(-1)[0]
    assert most[::3].mean() > 0.55  # skewed
    first, second = history.reward[0, 1::3, :30].mean(-1), history.reward[0, 1::3, 30:].mean(-1)
    own = history.reward[0, ::3, :30].mean(-1) - history.reward[0, ::3, 30:].mean(-1)
    assert (first - second).square().mean() > 2 * own.square().mean()  # switched in the middle
    laws = skewed_laws("test", 50, 3)
    torch.testing.assert_close(laws.sum(-1), torch.ones(1, 50))


@pytest.mark.parametrize(
    ("name", "constants"), [("constant-step", {"step_size": 0.3, "temperature": 0.2}), ("empirical-mean", {})]
)
def test_a_planted_law_is_identified(name: str, constants: dict[str, float]) -> None:
    history = contexts()
    laws = follow(acting_learner(name, constants), history).laws
    found = examine_laws(laws, history, RIVALS, n_fitting=12)
    assert found.verdicts[0].outcome == "identified", found.verdicts[0].note
    assert found.verdicts[0].learners == (name,)
    assert found.unexplained[name].max() < 1e-6
    assert found.unexplained["random"].median() > 0.3


def test_a_law_that_no_rival_has_is_none() -> None:
    """The source's actions, renamed: what was won on one arm speaks for the next."""
    history = contexts()
    laws = follow(acting_learner("constant-step"), history).laws.roll(1, -1)
    assert examine_laws(laws, history, RIVALS, n_fitting=12).verdicts[0].outcome == "none"


def test_the_report_of_an_untrained_policy_says_none_and_is_told_in_words() -> None:
    config = PolicyConfig(n_observations=1, n_actions=3, n_ctx=10, d_model=8, n_layers=1, n_heads=1, d_mlp=8)
    policy = PolicyTransformer(config, initial_weights(config, [0, 1]))
    found = report(policy, "bernoulli-bandit", rivals=("random", "empirical-mean"), contexts=4)
    assert json.loads(json.dumps(found, allow_nan=False))["verdict"]["outcome"] == "none"
    text = render(found)
    assert "Answer: none" in text
    assert "nats of an action" in text
    with pytest.raises(ConfigError, match="context_length is 11; allowed: 2 to 10"):
        report(policy, "bernoulli-bandit", context_length=11)


def test_a_policy_of_many_states_is_no_bandit_policy() -> None:
    config = PolicyConfig(n_observations=4, n_actions=3, n_ctx=10, d_model=8, n_layers=1, n_heads=1, d_mlp=8)
    policy = PolicyTransformer(config, initial_weights(config, [0]))
    with pytest.raises(ConfigError, match="4 observations apart"):
        report(policy, "bernoulli-bandit")
