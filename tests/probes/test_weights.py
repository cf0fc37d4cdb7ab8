"""The weight reading: invariant under the gauge, a true least-squares distance, and blind only to idle blocks."""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import Tensor

from models import constructions
from models.config import LinearTransformerConfig, Mask
from models.linear import LinearTransformer
from probes.weights import ELEMENTWISE, WeightReading, read_weights, relevance
from tasks.layout import Prompt

D, N_LAYERS = 3, 4
IDENTITY = torch.eye(D, dtype=torch.float64)
ALPHA = torch.tensor([[0.5, 0.7, 0.3, 0.2], [0.4, 0.1, 0.6, 0.9]], dtype=torch.float64)
SCALAR_C = ALPHA[..., None, None] * IDENTITY
RANDOM_C = torch.randn(2, N_LAYERS, D, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
PLAIN = LinearTransformerConfig(N_LAYERS, False, D)
AVERAGE_REWARD = replace(PLAIN, discounted=False, memory=True, masks=(Mask("centred"), Mask()))

PLANTED: dict[str, LinearTransformer] = {
    "td0": constructions.td0(SCALAR_C, n_layers=N_LAYERS, gamma_eff=0.6),
    "myopic": constructions.myopic(SCALAR_C, n_layers=N_LAYERS),
    "residual-gradient": constructions.residual_gradient(SCALAR_C, n_layers=N_LAYERS),
    "preconditioned-td": constructions.td0(RANDOM_C, n_layers=N_LAYERS),
    "td-lambda": constructions.td_lambda(SCALAR_C, n_layers=N_LAYERS, lam=0.4),
    "average-reward-td": constructions.average_reward_td(SCALAR_C, n_layers=N_LAYERS),
}
NESTED = {
    "td0": {"td0", "preconditioned-td", "td-plus-plus"},
    "myopic": {"td0", "myopic", "residual-gradient", "preconditioned-td", "td-plus-plus"},
    "residual-gradient": {"residual-gradient"},
    "preconditioned-td": {"preconditioned-td"},
    "td-lambda": {"td-lambda"},
    "average-reward-td": {"average-reward-td"},
}


def close(actual: Tensor | None, expected: Tensor | float) -> None:
    assert actual is not None
    torch.testing.assert_close(
        actual, torch.as_tensor(expected, dtype=actual.dtype).expand_as(actual), rtol=0, atol=1e-12
    )


def invariants(reading: WeightReading) -> dict[str, Tensor]:
    numbers = {name: getattr(reading, name) for name in ("alpha_eff", "gamma_eff", "p_remainder", "q_remainder")}
    for name, fit in reading.constructions.items():
        numbers[f"{name} distance"] = fit.distance
        numbers |= {f"{name} {constant}": value for constant, value in fit.constants.items()}
        if fit.C is not None:
            numbers[f"{name} C"] = fit.C
    return numbers


def assert_same(left: WeightReading, right: WeightReading, names: set[str] | None = None) -> None:
    left_numbers, right_numbers = invariants(left), invariants(right)
    assert left_numbers.keys() == right_numbers.keys()
    for name in names or left_numbers:
        torch.testing.assert_close(left_numbers[name], right_numbers[name], rtol=1e-9, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("name", PLANTED)
class TestPlanted:
    def test_the_planted_construction_is_at_distance_zero_and_no_other_is(self, name: str) -> None:
        fits = read_weights(PLANTED[name]).constructions
        assert {rival for rival, fit in fits.items() if fit.distance.max() < 1e-12} == NESTED[name]
        assert all(fit.distance.min() > 0.02 for rival, fit in fits.items() if rival not in NESTED[name])

    def test_its_constants_are_recovered(self, name: str) -> None:
        fit = read_weights(PLANTED[name]).constructions[name]
        if name == "preconditioned-td":
            close(fit.C, RANDOM_C)
        else:
            close(fit.constants["alpha"], ALPHA)
        if "gamma" in fit.constants:
            close(fit.constants["gamma"], 0.6 if name == "td0" else 0.9)

    @pytest.mark.parametrize("gauge", [-7.0, 0.01])
    def test_the_reading_does_not_see_the_gauge(self, name: str, gauge: float) -> None:
        assert_same(read_weights(constructions.rescaled(PLANTED[name], gauge)), read_weights(PLANTED[name]))


@pytest.mark.parametrize("config", [PLAIN, AVERAGE_REWARD, replace(PLAIN, looped=True)], ids=["", "heads", "looped"])
class TestRandomWeights:
    def test_every_layer_and_head_has_a_gauge_of_its_own(
        self, config: LinearTransformerConfig, make_network: Callable[..., LinearTransformer]
    ) -> None:
        model = make_network(config)
        gauge = torch.randn(*model.P.shape[:3], 1, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        rescaled = LinearTransformer(config, model.P.detach() * gauge, model.Q.detach() / gauge)
        reading, other = read_weights(model), read_weights(rescaled)
        assert_same(other, reading)
        scale = gauge[..., 0, 0].abs()
        torch.testing.assert_close(other.p_bottom_right, reading.p_bottom_right * scale)
        torch.testing.assert_close(other.q_upper_left_trace, reading.q_upper_left_trace / scale)
        assert (reading.p_bottom_right >= 0).all()

    def test_other_products_are_seen(
        self, config: LinearTransformerConfig, make_network: Callable[..., LinearTransformer]
    ) -> None:
        model = make_network(config)
        doubled = read_weights(LinearTransformer(config, model.P.detach() * 2, model.Q.detach()))
        for name, fit in read_weights(model).constructions.items():
            torch.testing.assert_close(doubled.constructions[name].distance, fit.distance)
            if "alpha" in fit.constants:
                torch.testing.assert_close(doubled.constructions[name].constants["alpha"], 2 * fit.constants["alpha"])


IDLE_CASES = {
    "one layer": replace(PLAIN, n_layers=1),
    "one layer, looped": replace(PLAIN, n_layers=1, looped=True),
    "three layers": replace(PLAIN, n_layers=3),
    "looped": replace(PLAIN, n_layers=3, looped=True),
    "lambda": replace(PLAIN, n_layers=2, masks=(Mask("query", 0.5),)),
    "average reward": replace(AVERAGE_REWARD, n_layers=3),
    "average reward, looped": replace(AVERAGE_REWARD, n_layers=2, looped=True),
    "average reward, one layer": replace(AVERAGE_REWARD, n_layers=1),
    "relu": replace(PLAIN, n_layers=2, activation="relu"),
    "softmax": replace(PLAIN, n_layers=2, activation="softmax"),
    "softmax over queries": replace(PLAIN, n_layers=2, activation="softmax-over-queries"),
    "softmax over queries, one layer": replace(PLAIN, n_layers=1, activation="softmax-over-queries"),
}


@pytest.mark.parametrize("config", IDLE_CASES.values(), ids=IDLE_CASES)
class TestRelevance:
    def test_noise_in_idle_blocks_changes_neither_function_nor_reading(
        self,
        config: LinearTransformerConfig,
        make_network: Callable[..., LinearTransformer],
        make_prompt: Callable[..., Prompt],
    ) -> None:
        model, prompt = make_network(config), make_prompt(memory=config.memory)
        p_idle, q_idle = (~mask[:, None] for mask in relevance(config))
        noise = make_network(config, seeds=3, scale=2.0)
        P, Q = model.P.detach() + noise.P[1:].detach() * p_idle, model.Q.detach() + noise.Q[1:].detach() * q_idle
        noisy = LinearTransformer(config, P, Q)
        torch.testing.assert_close(noisy.predict(prompt), model.predict(prompt), rtol=0, atol=1e-12)
        assert_same(read_weights(noisy), read_weights(model))

    def test_every_other_block_changes_the_function(
        self,
        config: LinearTransformerConfig,
        make_network: Callable[..., LinearTransformer],
        make_prompt: Callable[..., Prompt],
    ) -> None:
        model, prompt = make_network(config, seeds=1), make_prompt(memory=config.memory)
        names, masks = list(model.layout.slices), dict(zip("PQ", relevance(config), strict=True))
        changes = list(product("PQ", range(config.n_weight_layers), names, names))
        weights = {name: getattr(model, name).detach().repeat(len(changes), 1, 1, 1, 1) for name in "PQ"}
        for seed, (name, layer, row, column) in enumerate(changes):
            model.layout.block(weights[name][seed, layer], row, column).add_(0.3)
        after = LinearTransformer(config, weights["P"], weights["Q"]).predict(prompt)
        moved = ((after - model.predict(prompt)).abs().amax((1, 2, 3)) > 1e-9).tolist()
        relevant = [
            bool(model.layout.block(masks[name][layer], row, column).any()) for name, layer, row, column in changes
        ]
        assert dict(zip(changes, moved, strict=True)) == dict(zip(changes, relevant, strict=True))


def test_with_one_layer_td_and_myopic_are_one_and_gamma_is_not_there() -> None:
    model = constructions.td0(SCALAR_C[:, :1], n_layers=1)
    reading = read_weights(model)
    for name in ("td0", "myopic", "residual-gradient", "preconditioned-td", "td-plus-plus"):
        assert reading.constructions[name].distance.max() < 1e-12
    close(reading.alpha_eff, ALPHA[:, :1])
    assert reading.gamma_eff.isnan().all()
    step_of_residual_gradient = read_weights(constructions.residual_gradient(SCALAR_C[:, :1], n_layers=1))
    assert step_of_residual_gradient.constructions["td0"].distance.min() > 0.1
    close(step_of_residual_gradient.constructions["residual-gradient"].distance, 0.0)
    close(step_of_residual_gradient.constructions["residual-gradient"].constants["gamma"], 0.9)


def test_the_published_numbers() -> None:
    """Section 5 of the paper: P[-1, -1] 1.605, tr UL -4.31, tr UR 3.28 give alpha_eff 1.73 and gamma_eff 0.69."""
    d, identity = 4, torch.eye(4, dtype=torch.float64)
    model = constructions.td0(identity[None, None], n_layers=3)
    with torch.no_grad():
        model.P.mul_(-1.605)
        model.layout.block(model.Q, "features", "features")[:] = 4.31 / d * identity
        model.layout.block(model.Q, "features", "next_features")[:] = -3.28 / d * identity
        model.layout.block(model.Q, "reward", "reward")[:] = 7.3
    reading = read_weights(model)
    values = {name: getattr(reading, name).item() for name in (*ELEMENTWISE, "alpha_eff", "gamma_eff")}
    assert values == pytest.approx(
        {
            "p_bottom_right": 1.605,
            "p_others": 0.0,
            "q_upper_left_trace": -4.31,
            "q_upper_right_trace": 3.28,
            "q_others": 7.3 / 73,
            "q_others_published": 7.3 / 73 + 2 * 4.31 / 73,
            "alpha_eff": 1.605 * 4.31 / 4,
            "gamma_eff": 0.9 * 3.28 / 4.31,
        },
        abs=1e-12,
    )


class TestReadingsThatMakeNoSense:
    @pytest.mark.parametrize(
        "config",
        [
            AVERAGE_REWARD,
            replace(PLAIN, memory=True),
            replace(PLAIN, masks=(Mask(), Mask())),
            replace(PLAIN, activation="relu"),
            replace(PLAIN, activation="softmax"),
            replace(PLAIN, readout_sign=1),
            replace(PLAIN, masks=(Mask("centred"),)),
        ],
        ids=["average reward", "memory", "heads", "relu", "softmax", "positive read-out", "centred"],
    )
    def test_are_nan(self, config: LinearTransformerConfig, make_network: Callable[..., LinearTransformer]) -> None:
        reading = read_weights(make_network(config))
        assert reading.alpha_eff.shape == reading.gamma_eff.shape == (2, N_LAYERS)
        assert reading.alpha_eff.isnan().all()
        assert reading.gamma_eff.isnan().all()
        assert reading.constructions.keys() <= {"average-reward-td"}

    def test_gamma_without_a_step_is_nan(self) -> None:
        model = constructions.td0(SCALAR_C, n_layers=N_LAYERS)
        P = model.P.detach().clone()
        P[0] = 0.0
        no_step = LinearTransformer(model.config, P, model.Q)
        reading = read_weights(no_step)
        close(reading.alpha_eff, torch.stack([torch.zeros(N_LAYERS), ALPHA[1]]))
        assert reading.gamma_eff.isnan().tolist() == [[True] * N_LAYERS, [False] * N_LAYERS]

    def test_of_one_diverged_seed_leave_the_others_alone(self) -> None:
        model = PLANTED["td0"]
        P = model.P.detach().clone()
        P[0] = math.nan
        reading = read_weights(LinearTransformer(model.config, P, model.Q))
        close(reading.alpha_eff[1], ALPHA[1])
        for fit in reading.constructions.values():
            assert fit.distance[0].isnan().all()
            assert fit.distance[1].isfinite().all()

    def test_sign_of_head_one_follows_the_read_out(self) -> None:
        """The released code of Theorem 3 negates the first mask and reads +Z[-1, -1]."""
        model = PLANTED["average-reward-td"]
        P = model.P.detach().clone()
        P[:, :, 0] *= -1
        negated = LinearTransformer(replace(model.config, readout_sign=1), P, model.Q)
        close(read_weights(negated).constructions["average-reward-td"].distance, 0.0)
        wrong = LinearTransformer(model.config, P, model.Q)
        distance = read_weights(wrong).constructions["average-reward-td"].distance
        assert distance[:, 1:].min() > 0.1
        close(distance[:, 0], 0.0)  # before the first layer memory is empty: one head alone works, and alpha < 0


class TestTable:
    def test_is_tidy(self) -> None:
        reading = read_weights(PLANTED["td0"])
        table = reading.table()
        assert list(table.columns) == ["seed", "layer", "target", "learner", "metric", "value"]
        assert not table.duplicated(["seed", "layer", "target", "learner", "metric"]).any()
        alpha = table.query("metric == 'alpha_eff'").pivot(index="seed", columns="layer", values="value")
        torch.testing.assert_close(torch.tensor(alpha.to_numpy()), ALPHA)
        distance = table.query("metric == 'construction_distance' and learner == 'myopic' and seed == 1 and layer == 2")
        assert distance["value"].item() == reading.constructions["myopic"].distance[1, 2].item()
        assert set(ELEMENTWISE) < set(table["metric"])

    def test_names_heads_where_there_are_several(self) -> None:
        table = read_weights(PLANTED["average-reward-td"]).table()
        assert set(table.query("metric == 'p_others'")["target"]) == {"head 0", "head 1"}
        block = table.query("metric == 'p_remainder' and target == 'head 1 memory,features'")
        assert len(block) == 2 * N_LAYERS
