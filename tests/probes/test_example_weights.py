"""Constants are read off P and Q in any gauge, and the distances are those to the nearest construction."""

import math

import pytest
import torch

from algorithms.bank import build
from models.config import ConfigError, LinearTransformerConfig
from models.linear import LinearTransformer
from probes.example_weights import dist, read_example_weights
from tasks.layout import labelled_layout
from tasks.regression import AHN_SPECTRUM, RegressionFamily, covariance_matrix, covariance_power
from tasks.streams import normals

D, L = 5, 3
SIGMA = covariance_matrix(AHN_SPECTRUM, 0)
STEPS, REWRITES = torch.tensor([0.377, 2.411, 9.663]).double(), torch.tensor([0.911, 0.567, 0.3]).double()


def full(gauge: float = 1.0, noise: float = 0.0) -> LinearTransformer:
    """A_l = a_l Sigma^-1 and B_l = b_l I, the stationary set of Theorem 4 of 2306.00297."""
    inverse = covariance_power(SIGMA, -1.0, D)
    config = LinearTransformerConfig(L, False, D, tokens="labelled", covariance=SIGMA)
    layout = labelled_layout(D)
    P, Q = (torch.zeros(1, L, 1, D + 1, D + 1, dtype=torch.float64) for _ in range(2))
    layout.block(P, "label", "label")[:] = 1.0
    layout.block(P, "features", "features")[:] = (REWRITES[:, None, None] * torch.eye(D))[None, :, None]
    layout.block(Q, "features", "features")[:] = -(STEPS[:, None, None] * inverse)[None, :, None]
    draws = noise * normals([0], "test/noise", 0, 2, *P.shape[1:]).double()
    return LinearTransformer(config, gauge * (P + draws[:, 0]), (Q + draws[:, 1]) / gauge)


@pytest.mark.parametrize("gauge", [1.0, -3.0])
def test_constants_do_not_depend_on_the_gauge(gauge):
    found = read_example_weights(full(gauge))
    torch.testing.assert_close(found.alpha_whitened, STEPS[None], rtol=1e-10, atol=0)
    torch.testing.assert_close(found.rewrite, torch.tensor([[0.911, 0.567, 0.0]]).double(), rtol=1e-10, atol=0)
    assert found.constructions["gd-plus-plus"].distance.max() < 1e-12
    assert found.constructions["preconditioned-gd"].distance[0, 0] > 0.1
    assert found.constructions["preconditioned-gd"].distance[0, -1] < 1e-12  # a last layer has nothing to rewrite
    assert found.dist_b[0, :2].max() < 1e-10
    assert math.isnan(found.dist_b[0, 2])


def test_the_published_reference_levels_of_dist():
    """Sigma^-1 with the paper's spectrum is .784 from the identity, and whitened it is the identity."""
    found = read_example_weights(full())
    torch.testing.assert_close(found.dist_a, torch.full((1, L), 0.784).double(), rtol=0, atol=5e-4)
    assert found.dist_a_whitened.max() < 1e-10
    assert dist(torch.diag(torch.tensor([1.0, -1.0]))) == 1


def test_starts_are_the_function_of_the_weights():
    network = full(2.0)
    prompt = RegressionFamily(D, SIGMA, prior="inverse-covariance").fresh_prompt([0], "t", 0, 4, 20, network.layout)
    learner = build("gd-plus-plus", L, read_example_weights(network).starts()["gd-plus-plus"])
    torch.testing.assert_close(learner.predict(prompt), network.predict(prompt), rtol=0, atol=1e-9)


def test_noise_shows_as_distance():
    small, large = (
        read_example_weights(full(noise=noise)).constructions["gd-plus-plus"].distance for noise in (0.01, 0.1)
    )
    assert (small > 0).all()
    assert (small < large).all()


def test_other_tokens_are_refused():
    config = LinearTransformerConfig(1, True, 2)
    weights = torch.zeros(1, 1, 1, 5, 5)
    with pytest.raises(ConfigError, match="'transition'; allowed here: 'labelled'"):
        read_example_weights(LinearTransformer(config, weights, weights))
