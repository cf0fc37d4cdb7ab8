"""Every network is asked on prompts of its own tokens, and no others."""

import pytest
import torch

from algorithms.fit import disagreement
from algorithms.gradient_descent import GD
from analyses.questions import ALLOWED, questions
from models import causal_constructions
from models.config import ConfigError, LinearTransformerConfig
from models.linear import LinearTransformer
from models.networks import build, initial_weights
from tasks.regression import AHN_SPECTRUM, RegressionFamily, covariance_matrix

SIGMA = covariance_matrix(AHN_SPECTRUM, 1)
NETWORKS = {
    "reward": build(config := LinearTransformerConfig(2, True, 3), initial_weights(config, [0])),
    "label": build(
        config := LinearTransformerConfig(2, False, 5, tokens="labelled", covariance=SIGMA),
        initial_weights(config, [0]),
    ),
    "features": causal_constructions.trace_relation(4, 12),
}


@pytest.mark.parametrize("target", NETWORKS)
def test_prompts_are_of_the_networks_tokens(target):
    network = NETWORKS[target]
    families, prompts = questions(ALLOWED[target][0 if target != "features" else 1], network)
    for family in families:
        if family.loops == 1:
            prompt = prompts(family, "test", 2)
            assert prompt.layout == network.layout
            assert network.double().predict(prompt).isfinite().all()


@pytest.mark.parametrize("target", NETWORKS)
def test_tasks_of_other_tokens_are_refused(target):
    for other in ALLOWED.keys() - {target}:
        with pytest.raises(ConfigError, match=rf"task is '{ALLOWED[other][0]}', .*allowed: {ALLOWED[target][0]}"):
            questions(ALLOWED[other][0], NETWORKS[target])


def test_regression_follows_the_covariance_of_the_config():
    families, _ = questions("linear-regression", NETWORKS["label"])
    assert isinstance(families[0].source, RegressionFamily)
    assert families[0].source.covariance == SIGMA
    assert families[0].context_length == 20


def test_a_network_with_positions_is_asked_no_longer_sequences():
    families, _ = questions("orthogonal-autoregression", NETWORKS["features"])
    assert {family.context_length for family in families} == {12}
    assert [family.name for family in families] == ["own prompts", "random first states"]
    with pytest.raises(ConfigError, match="context_length is 13; this network has positions for 12 states"):
        questions("orthogonal-autoregression", NETWORKS["features"], context_length=13)


def test_the_right_learner_stays_right_wherever_a_sequence_network_is_asked():
    """Whatever the prompts, one step of GD with the constants of the network's own ones is the network."""
    network = causal_constructions.gradient_step(torch.tensor([0.1], dtype=torch.float64), 3)
    families, prompts = questions("unitary-autoregression", network, context_length=8)
    for family in families:
        prompt = prompts(family, "test", 5)
        left = disagreement(network.predict(prompt), GD(1, 0.1 * 8).predict(prompt), prompt)
        assert left.max() < 1e-10, family.name


def test_labelled_tokens_are_recognised_by_their_width(tmp_path):
    network = NETWORKS["label"]
    assert isinstance(network, LinearTransformer)
    network.save_pretrained(tmp_path)
    assert LinearTransformer.from_folder(tmp_path).config == network.config
    (tmp_path / "config.json").write_text(
        '{"model": "linear-transformer", "n_layers": 2, "looped": false, "d_features": 5, "activation": "linear"}'
    )
    found = LinearTransformer.from_folder(tmp_path)
    assert (found.config.tokens, found.config.covariance) == ("labelled", None)
    assert torch.equal(found.P, network.P)
