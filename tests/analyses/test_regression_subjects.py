"""Networks and rivals are compared on the same prompts, and known networks read as what they are."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from algorithms.gradient_descent import one_step_loss, optimal_preconditioner
from algorithms.optima import Optimum, loss, symmetric_power
from analyses.configs import ANALYSES, LossVsContext, PreconditionedGDEmergence, SingleLayerOptimum
from analyses.loss_vs_context import run as run_context
from analyses.loss_vs_depth import GRID, published_baseline
from analyses.preconditioned_gd import A, B, blocks, dist
from analyses.regression_subjects import RegressionSubject, construction, contexts, errors
from analyses.single_layer_optimum import best_scale, distances, spectra
from models.config import RegressionTraining
from models.constructions import rescaled
from models.linear import LinearTransformer
from models.regression_constructions import gradient_descent
from tasks.errors import ConfigError
from tasks.regression import AHN_SPECTRUM

SETTINGS = PreconditionedGDEmergence(test_prompts=20_000, contexts=4000)
SUBJECT = RegressionSubject(SETTINGS, 2, "full", 20, AHN_SPECTRUM, "inverse-covariance")
OPTIMUM = Optimum(torch.tensor([0.5, 2.0]).double(), torch.tensor([0.8], dtype=torch.float64), 0.0)


@pytest.mark.parametrize("name", ["gd", "preconditioned-gd", "gd-plus-plus"])
def test_a_rival_as_a_network_loses_what_its_spectra_say(name):
    rewrites = OPTIMUM.rewrites if name == "gd-plus-plus" else torch.zeros(0).double()
    steps = OPTIMUM.steps if name != "gd" else torch.tensor([0.3, 0.5]).double()
    network = construction(SUBJECT, name, Optimum(steps, rewrites, 0.0))
    found = errors(SUBJECT, {name: network}, name)
    expected = loss(contexts(SUBJECT, preconditioned=name != "gd"), steps, rewrites)
    assert abs(found.mean[name].item() - expected.item()) < 3 * found.half_width[name].item() + 0.05 * expected.item()
    assert found.difference[name].item() == 0


def test_differences_are_paired():
    best, worse = (
        construction(SUBJECT, "preconditioned-gd", replace(OPTIMUM, steps=s * OPTIMUM.steps)) for s in (0.5, 0.4)
    )
    found = errors(SUBJECT, {"a": best, "b": worse}, "a")
    torch.testing.assert_close(found.difference["b"], found.mean["b"] - found.mean["a"], rtol=1e-9, atol=0)
    assert found.difference_half_width["b"] < found.half_width["b"] + found.half_width["a"]


def test_whitened_blocks_undo_the_construction_and_no_gauge_moves_them():
    network = construction(SUBJECT, "gd-plus-plus", OPTIMUM)
    for each in (network, rescaled(network, -3.0)):
        found = blocks(SUBJECT, each.P.detach(), each.Q.detach())
        expected = OPTIMUM.steps[:, None, None] * torch.eye(5).double()
        torch.testing.assert_close(found[A][0], expected, rtol=0, atol=1e-9)
        torch.testing.assert_close(found[B][0, 0], 0.8 * torch.eye(5).double(), rtol=0, atol=1e-9)


def test_dist_is_that_of_the_paper():
    covariance = torch.diag(torch.tensor(AHN_SPECTRUM).double())
    theorem = optimal_preconditioner(covariance, 20)
    root = symmetric_power(covariance, 0.5)
    assert dist(3 * torch.eye(5)) == 0
    assert dist(torch.linalg.inv(covariance)).item() == pytest.approx(0.784, abs=5e-4)
    assert dist(theorem).item() == pytest.approx(0.603, abs=5e-4)
    assert dist(root @ theorem @ root).item() == pytest.approx(0.311, abs=5e-4)


def test_the_best_scale_is_the_minimum():
    covariance = torch.diag(torch.tensor(AHN_SPECTRUM).double())
    for matrix, expected in ((torch.eye(5).double(), 0.7536), (torch.linalg.inv(covariance), 0.7644)):
        c = best_scale(matrix, covariance, 20)
        losses = one_step_loss(torch.stack([f * c * matrix for f in (0.99, 1.0, 1.01)]), covariance, 20)
        assert losses[1] < losses[0]
        assert losses[1] < losses[2]
        assert losses[1].item() == pytest.approx(expected, abs=1e-4)


def test_a_layer_reads_as_its_preconditioner_and_what_leaks_is_counted():
    C = torch.diag(torch.arange(1.0, 6.0).double())[None, None]
    network = gradient_descent(C, n_layers=1)
    subject = RegressionSubject(SETTINGS, 1, "free", 20, AHN_SPECTRUM, "identity")
    for each in (network, rescaled(network, -2.0)):
        found = distances(subject, each, network, {"theorem": C[0, 0]}, [0])
        np.testing.assert_allclose(found["value"], 0, atol=1e-12)
    P = network.P.detach().clone()
    P[..., -1, 0] = 1.0
    leaking = LinearTransformer(network.config, P, network.Q.detach())
    found = distances(subject, leaking, network, {"theorem": C[0, 0]}, [0]).set_index("metric")["value"]
    assert found["distance"] == found["distance-on-prompts"] == 0
    assert found["leak"] > 0.1


def test_published_baselines_are_those_of_the_notebooks():
    """GD 2.30 and Sigma^-1 1.20 at one layer, 1.43 and .325 at three, all at eta = .04."""
    assert 0.04 in GRID
    settings = replace(SETTINGS, contexts=20_000)
    for depth, expected in ((1, (2.30, 1.20)), (3, (1.43, 0.325))):
        subject = RegressionSubject(settings, depth, "full", 20, AHN_SPECTRUM, "inverse-covariance")
        found = [published_baseline(subject, preconditioned=whitened).item() for whitened in (False, True)]
        assert found == pytest.approx(expected, rel=0.03)


def test_the_paper_preset_trains_on_the_schedule_of_the_notebooks():
    """Theorem 4's figures: AdamW of lr .1, betas .99 and .9, halved every 4000 of 100k steps, norms clipped at .01."""
    subject = replace(SUBJECT, settings=ANALYSES["preconditioned-gd"].preset("paper"))
    schedule = {"learning_rate": 0.1, "betas": (0.99, 0.9), "halve_every": 4000, "clip": 0.01, "resample_every": 100}
    training = RegressionTraining("full", 20, 100_000, 20_000, initial_std=1e-4, stages=(), snapshot_every=500)
    assert subject.training == replace(training, **schedule)
    assert replace(subject, parameters="sparse").training.learning_rate == 0.02


def test_spectra_have_the_dimension_asked_for():
    assert spectra(5)["published"] == AHN_SPECTRUM
    assert {len(spectrum) for spectrum in spectra(7).values()} == {7}


def test_contexts_too_short_for_the_baselines_are_refused():
    with pytest.raises(ConfigError, match="allowed: at least 2"):
        run_context(LossVsContext(context_lengths=(1, 4)))


def test_presets_of_the_single_layer_are_what_they_say():
    assert ANALYSES["single-layer-optimum"].preset("laptop") == SingleLayerOptimum()
