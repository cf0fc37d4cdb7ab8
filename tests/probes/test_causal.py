"""What the runner of causal tests says: obstacles, tasks left out, seeds kept apart, and the table of pairs."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from algorithms.learner import Learner
from algorithms.temporal_difference import LSTD, TD0, Myopic, ResidualGradient
from models import constructions
from models.config import LinearTransformerConfig
from models.linear import LinearTransformer
from probes.causal import CausalFinding, causal_table, run_tests
from probes.interventions import (
    bootstrap_lesion,
    erasure,
    more_depth,
    random_erasure,
    standard_tests,
    stitching,
    td_error_swap,
)
from tasks.layout import Prompt

D, L, GAMMA = 3, 3, 0.9
IDENTITY = torch.eye(D, dtype=torch.float64)
ALPHA = torch.tensor([[[0.5]], [[0.65]]], dtype=torch.float64)  # [seeds, 1, layers]
PROBED = TD0(L, 0.6, GAMMA)
TESTS = {test.name: test for test in standard_tests(L, PROBED)}
INTERNAL = [name for name in TESTS if " at " in name]
TABLE_LEARNERS: dict[str, Learner] = {
    "myopic": Myopic(L, 1.0),
    "td0": TD0(L, 1.0, GAMMA),
    "residual-gradient": ResidualGradient(L, 0.6, GAMMA),
    "lstd": LSTD(0.02, GAMMA),
}


def planted() -> tuple[LinearTransformer, Learner]:
    """TD(0) in a gauge of its own, and its learner with the true constants, another step size for every seed."""
    C = ALPHA[:, 0, :, None, None] * IDENTITY
    return constructions.rescaled(constructions.td0(C, n_layers=L), -2.5), TD0(L, ALPHA, GAMMA)


def findings(model: Any, learners: dict[str, Learner], prompt: Prompt, *names: str) -> list[CausalFinding]:
    return run_tests(model, learners, prompt, [TESTS[name] for name in names])


class TestApplicability:
    def test_obstacles_say_what_is_needed(self, make_network: Callable[..., LinearTransformer]) -> None:
        config = LinearTransformerConfig(L, False, D, activation="softmax-over-queries")
        network = make_network(config)
        assert "cannot run again" in more_depth(2).obstacle(network)
        assert "one residual stream per task" in td_error_swap(1).obstacle(network)
        assert not bootstrap_lesion().obstacle(network)
        assert "needs merged weights" in bootstrap_lesion().obstacle(PROBED)
        assert "needs merged weights" in more_depth(2).obstacle(PROBED)
        assert "needs a residual stream with hooks" in td_error_swap(1).obstacle(PROBED)
        assert not stitching().obstacle(PROBED)

    @pytest.mark.parametrize("activation", ["relu", "softmax", "softmax-over-queries"])
    def test_every_activation_is_tested_where_it_can_be(
        self, activation: str, make_prompt: Callable[..., Prompt], make_network: Callable[..., LinearTransformer]
    ) -> None:
        model = make_network(LinearTransformerConfig(L, True, D, activation=activation))
        found = findings(model, {"td0": PROBED}, make_prompt(tasks=5, n=9), *TESTS)
        made = [finding for finding in found if not finding.obstacle]
        assert len(made) == len(TESTS) - (len(INTERNAL) if activation == "softmax-over-queries" else 0)
        for finding in made:
            assert finding.effect.shape == (2, 5)
            assert finding.effect.isfinite().all()

    def test_a_learner_can_be_the_subject(self, make_prompt: Callable[..., Prompt]) -> None:
        found = findings(
            PROBED, {"td0": PROBED}, make_prompt(tasks=4), "stitching", "discount × 0.5", "bootstrap lesion"
        )
        slopes = [finding.rivals["td0"].slope for finding in found[:2] if finding.rivals["td0"]]
        torch.testing.assert_close(torch.stack(slopes), torch.ones(2, 1, 4).double(), rtol=0, atol=1e-10)
        assert found[2].obstacle


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_probed_learner_may_have_constants_per_seed(seeds: int, make_prompt: Callable[..., Prompt]) -> None:
    (model, learner), prompt = planted(), make_prompt(tasks=5)
    probed = learner if seeds == 2 else PROBED
    for finding in run_tests(
        model,
        {"td0": learner, "rg": ResidualGradient(L, 0.5, GAMMA)},
        prompt,
        [make(1, probed) for make in (erasure, random_erasure)],
    ):
        agreement, other = finding.rivals["td0"], finding.rivals["rg"]
        assert agreement is not None
        assert other is not None
        assert (agreement.slope - 1).abs().max() < 1e-6
        assert other.unexplained.min() > 1e-3


def test_tasks_on_which_a_rival_diverges_are_left_out(make_prompt: Callable[..., Prompt]) -> None:
    model, learner = planted()
    prompt = make_prompt(tasks=6)
    (finding,) = findings(model, {"td0": learner, "mad": TD0(L, 1e4, GAMMA)}, prompt, "discount × 0.5")
    mad = finding.rivals["mad"]
    assert mad is not None
    assert mad.left_out.tolist() == [1.0, 1.0]
    assert mad.slope.isnan().all()
    assert mad.unexplained.isnan().all()
    assert not mad.predicts_none.any()
    assert finding.effect.isfinite().all()


def test_seeds_do_not_mix(make_prompt: Callable[..., Prompt]) -> None:
    model, learner = planted()
    prompt = make_prompt(tasks=6)
    second = LinearTransformer(model.config, model.P.detach()[1:], model.Q.detach()[1:])
    rivals: dict[str, Learner] = {"td0": learner, "rg": ResidualGradient(L, 0.5, GAMMA)}
    alone: dict[str, Learner] = {"td0": TD0(L, ALPHA[1:], GAMMA), "rg": rivals["rg"]}
    pairs = zip(findings(model, rivals, prompt, *TESTS), findings(second, alone, prompt, *TESTS), strict=True)
    for both, one in pairs:
        torch.testing.assert_close(both.effect[1:], one.effect, rtol=0, atol=1e-10)
        for name in rivals:
            ours, theirs = both.rivals[name], one.rivals[name]
            assert ours is not None
            assert theirs is not None
            torch.testing.assert_close(ours.slope[1:], theirs.slope, rtol=0, atol=1e-9)


class TestTable:
    @pytest.fixture
    def table(self, make_prompt: Callable[..., Prompt]) -> dict[str, dict[str, dict[str, float]]]:
        return causal_table(list(TESTS.values()), TABLE_LEARNERS, make_prompt(tasks=30, n=15), n_steps=L, shared=True)

    def test_a_learner_explains_itself_and_what_it_contains(
        self, table: dict[str, dict[str, dict[str, float]]]
    ) -> None:
        for test, pairs in table.items():
            for a in TABLE_LEARNERS:
                explained = [a, "td0"] if a == "myopic" else [a]
                for b in explained:
                    if test in INTERNAL and "lstd" in (a, b):
                        assert pairs[a][b] != pairs[a][b]  # NaN: predicts nothing
                    elif a == "myopic" and ("lesion" in test or "discount" in test) and b == "td0":
                        assert pairs[a][b] in (0.0, torch.inf)  # a fitted discount of zero, or of rounding
                    else:
                        assert pairs[a][b] < 1e-6, (test, a, b)

    def test_the_lesion_tells_td_from_myopic_and_from_residual_gradient(
        self, table: dict[str, dict[str, dict[str, float]]]
    ) -> None:
        lesion = table["bootstrap lesion"]
        assert lesion["td0"]["myopic"] == pytest.approx(1.0)
        assert lesion["td0"]["residual-gradient"] > 0.2
        assert lesion["residual-gradient"]["td0"] > 0.2
        assert table["stitching"]["lstd"]["td0"] > 0.05
