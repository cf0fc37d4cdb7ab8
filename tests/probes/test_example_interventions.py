"""Every edit moves a construction as its own learner says, to 1e-6, and not as a learner of another kind says."""

from dataclasses import replace
from functools import cache

import pytest
import torch

from algorithms.bank import build
from algorithms.gradient_descent import GD, Averaging, GDPlusPlus, PreconditionedGD
from algorithms.learner import Learner
from models.config import LinearTransformerConfig
from models.linear import LinearTransformer
from probes.causal import CausalFinding, run_tests
from probes.counterfactuals import resume, tokens_at
from probes.example_interventions import example_tests
from probes.lens import residual_stream
from tasks.layout import Prompt, labelled_layout
from tasks.regression import RegressionFamily
from tasks.streams import normals

D, L, SEEDS = 3, 3, 2
EXACT = 1e-6
PROBED = GD(L, 0.5)
TESTS = {test.name: test for test in example_tests(L, PROBED)}
INTERNAL = [name for name in TESTS if " at " in name]


@cache
def prompt() -> Prompt:
    return RegressionFamily(D, n_queries=4).fresh_prompt([0], "test/causal", 0, 12, 10, labelled_layout(D))


def step_sizes(looped: bool) -> torch.Tensor:
    return 0.5 + 0.1 * normals(range(SEEDS), "test/steps", 0, 1, 1 if looped else L).double()  # [seeds, 1, layers]


def planted(name: str, looped: bool) -> tuple[LinearTransformer, Learner]:
    """A construction in a gauge of its own, and its learner with the true constants."""
    a = step_sizes(looped)
    identity = torch.eye(D, dtype=torch.float64)
    mixed = identity + 0.15 * normals(range(SEEDS), "test/matrix", 0, D, D).double()
    rewrite = 0.4 if name == "gd-plus-plus" else 0.0
    A = {"gd": a[:, 0, :, None, None] * identity}.get(name, a[:, 0, :, None, None] * mixed[:, None])
    config = LinearTransformerConfig(L, looped, D, tokens="labelled")
    layout = labelled_layout(D)
    P, Q = (torch.zeros(SEEDS, A.shape[1], 1, D + 1, D + 1, dtype=torch.float64) for _ in range(2))
    layout.block(P, "label", "label")[:] = 1.0
    layout.block(P, "features", "features")[:] = rewrite * identity
    layout.block(Q, "features", "features")[:] = -A.mT[:, :, None]
    learners = {
        "gd": lambda: GD(L, a),
        "preconditioned-gd": lambda: PreconditionedGD(L, A[:, None]),
        "gd-plus-plus": lambda: GDPlusPlus(L, A[:, None], rewrite),
    }
    return LinearTransformer(config, -2.5 * P, Q / -2.5), learners[name]()


@cache
def made(name: str, looped: bool) -> dict[str, CausalFinding]:
    network, own = planted(name, looped)
    rivals = {"own": own, "gd": GD(L, 0.5), "averaging": Averaging(step_size=0.5), "ols": build("ols", L)}
    return {found.test: found for found in run_tests(network, rivals, prompt(), list(TESTS.values()))}


@pytest.mark.parametrize("looped", [True, False])
@pytest.mark.parametrize("name", ["gd", "preconditioned-gd", "gd-plus-plus"])
class TestOwnConstruction:
    def test_the_tokens_hold_what_the_learner_says_they_do(self, name, looped):
        network, learner = planted(name, looped)
        stream = residual_stream(network, prompt())
        for layer in range(L + 1):
            tokens = tokens_at(learner, prompt(), layer)
            assert tokens is not None
            torch.testing.assert_close(stream[layer], tokens.tokens.expand_as(stream[layer]), rtol=0, atol=1e-10)
            torch.testing.assert_close(
                resume(learner, tokens, layer), learner.predict(prompt()).expand(SEEDS, -1, -1, -1), rtol=0, atol=1e-10
            )

    def test_every_slope_is_one(self, name, looped):
        for test, found in made(name, looped).items():
            if found.obstacle:
                assert not looped
                assert test.startswith("loops")
                continue
            agreement = found.rivals["own"]
            assert agreement is not None
            if test == "covariates restored" and name != "gd-plus-plus":
                assert agreement.predicts_none.all()
                assert (agreement.unexplained == 0).all()
                continue
            assert (agreement.slope - 1).abs().max() < EXACT
            assert agreement.unexplained.max() < EXACT


def test_plain_descent_mistakes_every_edit_of_gd_plus_plus():
    for test, found in made("gd-plus-plus", False).items():
        if found.obstacle or test.startswith("random"):
            continue
        agreement = found.rivals["gd"]
        assert agreement is not None
        assert agreement.unexplained.nanquantile(0.5) > 1e-3, test


def test_restored_covariates_take_from_gd_plus_plus_what_it_has_over_preconditioned_descent():
    network, learner = planted("gd-plus-plus", False)
    assert isinstance(learner, GDPlusPlus)
    test = TESTS["covariates restored"]
    seen = test.seen(network, prompt())
    plain = replace(learner, rewrite=0.0)
    torch.testing.assert_close(seen, plain.predict(prompt()) - learner.predict(prompt()), rtol=0, atol=1e-10)
    assert seen.abs().max() > 1e-2


def test_solvers_and_averaging_have_no_inner_step_to_edit():
    network, _ = planted("gd", False)
    assert made("gd", False)["residual swap at 1"].rivals["ols"] is None
    averaging = made("gd", False)["residual swap at 1"].rivals["averaging"]
    assert averaging is not None
    assert averaging.predicts_none.all()
    assert network.n_seeds == SEEDS
