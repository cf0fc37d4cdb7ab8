"""Every causal test recovers slope 1 on the construction whose learner predicts it, and a wrong one on a rival's."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from algorithms.learner import Learner
from algorithms.td_plus_plus import TDPlusPlus
from algorithms.temporal_difference import (
    LSTD,
    TD0,
    AverageRewardTD,
    MonteCarlo,
    Myopic,
    PreconditionedTD,
    ResidualGradient,
    TDLambda,
    Zero,
)
from models import constructions
from models.config import LinearTransformerConfig
from models.linear import LinearTransformer
from probes.causal import CausalFinding, run_tests
from probes.counterfactuals import resume, tokens_at
from probes.interventions import (
    N_PLACEBOS,
    bootstrap_lesion,
    discount_counterfactual,
    erasure,
    random_erasure,
    response,
    standard_tests,
    td_error_swap,
)
from probes.lens import residual_stream
from tasks.layout import Prompt
from tasks.streams import normals

D, L, SEEDS, GAMMA = 3, 3, 2, 0.9
IDENTITY = torch.eye(D, dtype=torch.float64)
PROBED = TD0(L, 0.6, GAMMA)
TESTS = {test.name: test for test in standard_tests(L, PROBED)}
INTERNAL = [name for name in TESTS if " at " in name]


def alpha(looped: bool) -> Tensor:
    """Step sizes [seeds, 1, layers], another one for every seed and layer."""
    draws = normals(range(SEEDS), "test/alpha", 0, 1, 1 if looped else L).double()
    return 0.6 + 0.1 * draws


def plus_plus(C: Tensor) -> LinearTransformer:
    """TD(0)'s weights, and in P the rows next_features <- (-.3 features, .2 next_features) over the step size."""
    model = constructions.td0(C, n_layers=L, gamma=GAMMA)
    with torch.no_grad():
        for column, scale in (("features", -0.3 * GAMMA), ("next_features", 0.2)):
            block = model.layout.block(model.P[:, :, 0], "next_features", column)
            block.diagonal(dim1=-2, dim2=-1)[:] = scale / C.diagonal(dim1=-2, dim2=-1)
    return model


def planted(name: str, looped: bool) -> tuple[LinearTransformer, Learner]:
    """A construction in a gauge of its own, and its learner with the true constants."""
    a = alpha(looped)
    C = a[:, 0, :, None, None] * IDENTITY
    mixed = C + 0.15 * normals(range(SEEDS), "test/C", 0, *C.shape[1:]).double()
    pairs: dict[str, Callable[[], tuple[LinearTransformer, Learner]]] = {
        "td0": lambda: (constructions.td0(C, n_layers=L), TD0(L, a, GAMMA)),
        "residual-gradient": lambda: (constructions.residual_gradient(C, n_layers=L), ResidualGradient(L, a, GAMMA)),
        "td-lambda": lambda: (constructions.td_lambda(C, n_layers=L, lam=0.5), TDLambda(L, a, GAMMA, 0.5)),
        "preconditioned-td": lambda: (constructions.td0(mixed, n_layers=L), PreconditionedTD(L, mixed[:, None], GAMMA)),
        "td-plus-plus": lambda: (plus_plus(C), TDPlusPlus(L, a, GAMMA, -0.3, 0.2)),
        "average-reward-td": lambda: (constructions.average_reward_td(C, n_layers=L), AverageRewardTD(L, a)),
        "myopic": lambda: (constructions.myopic(C, n_layers=L), Myopic(L, a)),
    }
    model, learner = pairs[name]()
    return constructions.rescaled(model, -2.5), learner


PLANTED = ("td0", "residual-gradient", "td-lambda", "preconditioned-td", "td-plus-plus", "average-reward-td", "myopic")
# A test and a learner whose prediction fails on the construction of another: at least this far from slope 1, and this
# share unexplained.
WRONG = {
    **dict.fromkeys(TESTS, ("td0", "residual-gradient", 0.2, 0.3)),
    "stitching": ("lstd", "td0", 0.2, 0.3),
    "response kernel": ("td0", "residual-gradient", 0.1, 0.3),
    "random erasure at 2": ("td0", "residual-gradient", 0.1, 0.3),
}


def findings(model: Any, learners: dict[str, Learner], prompt: Prompt, *names: str) -> list[CausalFinding]:
    return run_tests(model, learners, prompt, [TESTS[name] for name in names])


@pytest.mark.parametrize("looped", [True, False], ids=["looped", "separate"])
@pytest.mark.parametrize("name", PLANTED)
class TestConstructions:
    def test_slopes_are_one(self, name: str, looped: bool, make_prompt: Callable[..., Prompt]) -> None:
        model, learner = planted(name, looped)
        prompt = make_prompt(tasks=8, n=15, memory=model.config.memory)
        for finding in findings(model, {name: learner}, prompt, *TESTS):
            if finding.obstacle:
                assert not looped
                assert finding.test == "loops × 2"
                continue
            agreement = finding.rivals[name]
            assert agreement is not None
            assert (agreement.unexplained < 1e-10).all(), finding.test
            assert not agreement.left_out.any()
            if name == "myopic" and ("lesion" in finding.test or "discount" in finding.test):
                assert agreement.predicts_none.all()
                assert agreement.slope.isnan().all()
                assert not finding.effect.any()
            else:
                assert not agreement.predicts_none.any()
                assert (agreement.slope - 1).abs().max() < 1e-6, finding.test
                assert (finding.effect > 1e-6).all()

    def test_the_learner_knows_every_slot_of_every_layer(
        self, name: str, looped: bool, make_prompt: Callable[..., Prompt]
    ) -> None:
        model, learner = planted(name, looped)
        prompt = make_prompt(memory=model.config.memory)
        stream = residual_stream(model, prompt)
        for layer in range(L + 1):
            tokens = tokens_at(learner, prompt, layer)
            assert tokens is not None
            torch.testing.assert_close(tokens.tokens.expand_as(stream[layer]), stream[layer], rtol=0, atol=1e-12)
            torch.testing.assert_close(
                resume(learner, tokens, layer),
                learner.predict(prompt).expand_as(model.predict(prompt)),
                rtol=0,
                atol=1e-12,
            )


@pytest.mark.parametrize("test", TESTS)
def test_a_rivals_construction_shows_a_wrong_slope(test: str, make_prompt: Callable[..., Prompt]) -> None:
    name, rival, off, unexplained = WRONG[test]
    model, _ = planted(rival, True)
    wrong = LSTD(1e-6, GAMMA) if name == "lstd" else planted(name, True)[1]
    (finding,) = findings(model, {name: wrong}, make_prompt(tasks=30, n=15), test)
    agreement = finding.rivals[name]
    assert agreement is not None
    for seed in range(SEEDS):
        assert abs(agreement.interval("slope", seed).value - 1) > off
        assert agreement.interval("unexplained", seed).low > unexplained


@pytest.mark.parametrize("test", TESTS)
def test_a_random_network_follows_no_learner(
    test: str, make_prompt: Callable[..., Prompt], make_network: Callable[..., LinearTransformer]
) -> None:
    model = make_network(LinearTransformerConfig(L, True, D))
    learners: dict[str, Learner] = {"td0": PROBED, "residual-gradient": ResidualGradient(L, 0.6, GAMMA)}
    (finding,) = findings(model, learners, make_prompt(tasks=30, n=15), test)
    for agreement in finding.rivals.values():
        assert agreement is not None
        assert agreement.unexplained.nanmedian(-1).values.min() > 0.5


class TestLesion:
    def test_td_lands_on_the_myopic_answer_and_residual_gradient_does_not(
        self, make_prompt: Callable[..., Prompt]
    ) -> None:
        prompt, test = make_prompt(tasks=5), bootstrap_lesion()
        myopic = planted("myopic", True)[0].predict(prompt)
        for name in PLANTED:
            model, _ = planted(name, True)
            if model.config.memory:
                continue
            landed = (model.predict(prompt) + test.seen(model, prompt)).detach()
            same = {"td0": True, "td-plus-plus": True, "myopic": True}.get(name, False)
            assert ((landed - myopic).abs().max() < 1e-12) == same, name

    def test_the_columns_of_q_meet_the_updated_token(self, make_prompt: Callable[..., Prompt]) -> None:
        """The rows meet the keys: zeroing those leaves TD(0), which has nothing there, as it was."""
        prompt, (model, _) = make_prompt(tasks=5), planted("td0", True)
        Q = model.Q.detach().clone()
        Q[..., model.layout["next_features"], :] = 0.0
        by_rows = LinearTransformer(model.config, model.P.detach(), Q)
        torch.testing.assert_close(by_rows.predict(prompt), model.predict(prompt), rtol=0, atol=0)
        assert bootstrap_lesion().seen(model, prompt).abs().max() > 1e-2

    def test_in_the_prompt_it_would_make_residual_gradient_myopic_too(self, make_prompt: Callable[..., Prompt]) -> None:
        """Why the weights are edited: a prompt without next features tells the two apart no longer."""
        prompt, (model, _) = make_prompt(tasks=5), planted("residual-gradient", True)
        change = discount_counterfactual(0.0).seen(model, prompt)
        myopic = planted("myopic", True)[0].predict(prompt)
        torch.testing.assert_close(model.predict(prompt) + change, myopic, rtol=0, atol=1e-12)


def test_rescaled_next_features_act_like_another_discount(make_prompt: Callable[..., Prompt]) -> None:
    prompt = make_prompt(tasks=5)
    for factor in (0.5, 1.25):
        change = discount_counterfactual(factor).predicted(TD0(L, 0.6, GAMMA), prompt)
        expected = TD0(L, 0.6, factor * GAMMA).predict(prompt) - TD0(L, 0.6, GAMMA).predict(prompt)
        assert change is not None
        torch.testing.assert_close(change, expected, rtol=0, atol=1e-12)


class TestInternalEdits:
    def test_a_swap_gives_the_prediction_of_spliced_iterates(self, make_prompt: Callable[..., Prompt]) -> None:
        """w_L = w_l + what is learned in the remaining steps from the other task's errors, step by step."""
        prompt, learner, layer = make_prompt(tasks=4), TD0(4, 0.6, GAMMA), 2
        trace, layout = learner(prompt), prompt.layout
        assert trace.weights is not None
        phi = layout.read(prompt.context, "features")
        difference = phi - layout.read(prompt.context, "next_features")
        delta, w = trace.internals["td_error"][layer].roll(1, -2), torch.zeros_like(trace.weights[0])
        for _ in range(2):
            step = 0.6 * (phi.mT @ delta[..., None])[..., 0] / phi.shape[-2]
            delta, w = delta - (difference @ step[..., None])[..., 0], w + step
        query = layout.read(prompt.query_tokens, "features")
        expected = query @ (trace.weights[layer] + w)[..., None] - learner.predict(prompt)
        change = td_error_swap(layer).predicted(learner, prompt)
        assert change is not None
        torch.testing.assert_close(change, expected, rtol=0, atol=1e-12)

    @pytest.mark.parametrize("learner", [LSTD(0.01, GAMMA), MonteCarlo(0.01, GAMMA), Zero(), AverageRewardTD(L, 0.3)])
    def test_learners_without_such_tokens_predict_nothing(
        self, learner: Learner, make_prompt: Callable[..., Prompt]
    ) -> None:
        prompt = make_prompt()
        assert tokens_at(learner, prompt, 1) is None
        for name in INTERNAL:
            assert TESTS[name].predicted(learner, prompt) is None
        with pytest.raises(TypeError, match=f"{type(learner).__name__} has no step 1"):
            resume(learner, prompt, 1)

    def test_nothing_linear_is_left_of_an_erased_error(self, make_prompt: Callable[..., Prompt]) -> None:
        """LEACE's guarantee: no covariance with the erased tokens; every random edit is as long and leaves plenty."""
        prompt, seen = make_prompt(tasks=10, n=15), []

        class Spy(LinearTransformer):
            def read_out(self, resid: Tensor, prompt: Prompt) -> Tensor:
                seen.append(resid)
                return super().read_out(resid, prompt)

        base, _ = planted("td0", False)
        # what is edited before the last layer, and that layer writes nothing
        P = base.P.detach() * torch.tensor([1.0, 1.0, 0.0]).double()[None, :, None, None, None]
        model = Spy(base.config, P, base.Q.detach())
        (before,) = residual_stream(model, prompt)[2][None]
        for test in (erasure(2, PROBED), random_erasure(2, PROBED)):
            test.seen(model, prompt)
        td_error = PROBED(prompt).internals["td_error"][2].flatten()
        clean, erased, *displaced = (
            x[..., prompt.is_context, :].flatten(1, 2) for x in (before, *(s for s in seen if s.shape == before.shape))
        )

        def covariance(tokens: Tensor) -> Tensor:
            return (td_error - td_error.mean()) @ (tokens - tokens.mean(-2, keepdim=True)) / len(td_error)

        assert covariance(clean).abs().amax(-1).min() > 1e-2
        assert covariance(erased).abs().max() < 1e-10
        moved = (erased - clean).norm(dim=-1)
        distances = [(x - clean).norm(dim=-1) for x in displaced]
        assert len(distances) == N_PLACEBOS
        torch.testing.assert_close(torch.stack(distances), moved.expand(N_PLACEBOS, -1, -1), rtol=0, atol=1e-10)
        assert min(covariance(x).abs().max() for x in displaced) > 1e-3


def test_standard_tests_erase_only_what_is_probed() -> None:
    assert {test.name for test in standard_tests(L)} == {name for name in TESTS if "erasure" not in name}
    assert not [test for test in standard_tests(1, PROBED) if test.needs == "hooks"]
    assert response().name in TESTS
