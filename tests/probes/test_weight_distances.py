"""The distance to a construction is the smallest there is, and the blocks of P and Q share out what it leaves."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from models import constructions
from models.config import LinearTransformerConfig, Mask
from models.linear import LinearTransformer
from probes.weights import read_weights

D, N_LAYERS = 3, 4
IDENTITY = torch.eye(D, dtype=torch.float64)
ALPHA = torch.tensor([[0.5, 0.7, 0.3, 0.2], [0.4, 0.1, 0.6, 0.9]], dtype=torch.float64)
SCALAR_C = ALPHA[..., None, None] * IDENTITY
PLAIN = LinearTransformerConfig(N_LAYERS, False, D)
AVERAGE_REWARD = replace(PLAIN, discounted=False, memory=True, masks=(Mask("centred"), Mask()))


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected.expand_as(actual), rtol=0, atol=1e-12)


class TestLeastSquares:
    """The closed forms against brute force on the tensor P ⊗ Q of one layer."""

    @pytest.fixture
    def model(self, make_network: Callable[..., LinearTransformer]) -> LinearTransformer:
        return make_network(replace(PLAIN, n_layers=2, looped=True), seeds=1)

    def blocks(self, model: LinearTransformer, matrix: str, entries: dict[tuple[str, str], Tensor]) -> Tensor:
        weight = torch.zeros_like(getattr(model, matrix)[0, 0, 0])
        for (row, column), value in entries.items():
            model.layout.block(weight, row, column)[:] = value
        return weight.detach()

    def distance(self, model: LinearTransformer, P_basis: list[Tensor], Q_basis: list[Tensor]) -> float:
        """The relative squared distance of P ⊗ Q from the span of all products of the two bases."""
        tensor = torch.kron(model.P[0, 0, 0].detach(), model.Q[0, 0, 0].detach()).reshape(-1, 1)
        basis = torch.stack([torch.kron(p, q).flatten() for p in P_basis for q in Q_basis], 1)
        rest = tensor - basis @ torch.linalg.lstsq(basis, tensor).solution
        return (rest.square().sum() / tensor.square().sum()).item()

    def test_distances_are_the_smallest_there_are(self, model: LinearTransformer) -> None:
        P, Q = (
            lambda entries: self.blocks(model, "P", entries),
            lambda entries: self.blocks(model, "Q", entries),
        )
        last = P({("reward", "reward"): torch.ones(1, 1)})
        left, right = Q({("features", "features"): IDENTITY}), Q({("features", "next_features"): IDENTITY})
        rows = [last, *(P({("next_features", column): IDENTITY}) for column in ("features", "next_features"))]

        def residual_gradient(angle: float) -> float:
            u = {"features": math.cos(angle), "next_features": math.sin(angle)}
            return self.distance(model, [last], [Q({(r, c): u[r] * u[c] * IDENTITY for r in u for c in u})])

        def preconditioned(angle: float) -> float:
            units = torch.eye(D * D, dtype=torch.float64).reshape(-1, D, D)
            u = {"features": math.cos(angle), "next_features": math.sin(angle)}
            return self.distance(model, [last], [Q({("features", c): u[c] * unit for c in u}) for unit in units])

        def smallest(of_angle: Callable[[float], float]) -> float:
            grid = torch.linspace(0, math.pi, 31).tolist()
            start = min(grid, key=of_angle)
            return minimize_scalar(of_angle, bracket=(start - 0.1, start, start + 0.1), tol=1e-10).fun

        expected = {
            "td0": self.distance(model, [last], [left, right]),
            "myopic": self.distance(model, [last], [left]),
            "td-plus-plus": self.distance(model, rows, [left, right]),
            "residual-gradient": smallest(residual_gradient),
            "preconditioned-td": smallest(preconditioned),
        }
        fits = read_weights(model).constructions
        assert fits.keys() == expected.keys()
        for name, fit in fits.items():
            assert fit.distance.item() == pytest.approx(expected[name], abs=1e-10), name
            assert 0.1 < expected[name] < 1

    def test_average_reward(self, make_network: Callable[..., LinearTransformer]) -> None:
        model = make_network(replace(AVERAGE_REWARD, n_layers=3, looped=True), seeds=1)
        heads = [torch.kron(model.P[0, 0, h].detach(), model.Q[0, 0, h].detach()) for h in range(2)]
        unit = constructions.average_reward_td(IDENTITY[None, None], n_layers=3)
        basis = [torch.kron(unit.P[0, 0, h].detach(), unit.Q[0, 0, h].detach()) for h in range(2)]
        tensor, line = torch.stack(heads).reshape(-1, 1), torch.stack(basis).reshape(-1, 1)
        alpha = torch.linalg.lstsq(line, tensor).solution
        rest = (tensor - line @ alpha).square().sum() / tensor.square().sum()
        fit = read_weights(model).constructions["average-reward-td"]
        close(fit.distance, rest)
        close(fit.constants["alpha"], alpha.squeeze())


class TestRemainder:
    def test_shares_and_the_distance_add_up(self, make_network: Callable[..., LinearTransformer]) -> None:
        reading = read_weights(make_network(PLAIN))
        p, q = (share[:, :, 0].nansum((-2, -1)) for share in (reading.p_remainder, reading.q_remainder))
        close((1 - p) * (1 - q), 1 - reading.constructions["td0"].distance)

    @pytest.mark.parametrize("matrix", ["p", "q"])
    def test_names_the_block_that_does_not_belong(self, matrix: str) -> None:
        model = constructions.td0(SCALAR_C, n_layers=N_LAYERS)
        with torch.no_grad():
            model.layout.block(getattr(model, matrix.upper()), "next_features", "reward")[:] = 0.5
        table = read_weights(model).table().query(f"metric == '{matrix}_remainder' and layer == 1 and seed == 0")
        shares = dict(zip(table["target"], table["value"], strict=True))
        assert shares.pop("next_features,reward") > 0.1
        assert max(shares.values()) < 1e-12

    def test_td_plus_plus_explains_its_rows(self) -> None:
        model = constructions.td0(SCALAR_C, n_layers=N_LAYERS)
        with torch.no_grad():
            for column, value in (("features", -0.2), ("next_features", 0.1)):
                model.layout.block(model.P, "next_features", column)[:] = value * IDENTITY
        fits = read_weights(model).constructions
        assert fits["td-plus-plus"].distance.max() < 1e-12
        assert fits["td0"].distance[:, :-1].min() > 0.05
        constants = fits["td-plus-plus"].constants
        close(constants["from_features"][:, :-1], -0.2 * ALPHA[:, :-1] / 0.9)
        close(constants["from_next"][:, :-1], 0.1 * ALPHA[:, :-1])
        assert constants["from_next"][:, -1].isnan().all()
