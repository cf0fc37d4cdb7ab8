"""Regression tasks: every distribution has the moments it states, and a prompt holds what its family says."""

from dataclasses import replace

import pytest
import torch
from scipy import stats
from torch import Tensor

from tasks.errors import ConfigError
from tasks.layout import Prompt, labelled_layout
from tasks.regression import AHN_SPECTRUM, COVARIATES, RegressionFamily, covariance_matrix, labelled_prompt

LAYOUT = labelled_layout(5)
ROTATED = covariance_matrix(AHN_SPECTRUM, 3)
SIGMA = torch.tensor(ROTATED, dtype=torch.float64)


def fresh(family: RegressionFamily, n: int = 50, seeds: tuple[int, ...] = (0, 1), length: int = 8) -> Prompt:
    return family.fresh_prompt(seeds, "test", 0, n, length, LAYOUT)


def features(prompt: Prompt) -> Tensor:
    return prompt.layout.read(prompt.tokens, "features")


def least_squares(prompt: Prompt) -> Tensor:
    """w [*batch, d, 1] that explains the context best."""
    labels = prompt.layout.read(prompt.context, "label")
    return torch.linalg.lstsq(prompt.layout.read(prompt.context, "features"), labels).solution


def worst_z_score(samples: Tensor, mean: Tensor) -> float:
    """How many standard errors the mean of independent samples [n, ...] lies from `mean`, at the worst entry."""
    error = samples.std(0) / len(samples) ** 0.5
    return float(((samples.mean(0) - mean).abs() / error).max())


class TestCovariance:
    def test_has_the_spectrum_whatever_the_rotation(self) -> None:
        for rotation in (None, 0, 3):
            matrix = torch.tensor(covariance_matrix(AHN_SPECTRUM, rotation), dtype=torch.float64)
            spectrum = torch.tensor(sorted(AHN_SPECTRUM), dtype=torch.float64)
            torch.testing.assert_close(torch.linalg.eigvalsh(matrix), spectrum, atol=1e-12, rtol=0)
            assert matrix.equal(matrix.mT)

    def test_is_diagonal_without_a_rotation_and_differs_by_seed_with_one(self) -> None:
        assert covariance_matrix((2.0, 0.5)) == ((2.0, 0.0), (0.0, 0.5))
        assert covariance_matrix((2.0, 0.5), 1) == covariance_matrix((2.0, 0.5), 1)
        assert covariance_matrix((2.0, 0.5), 1) != covariance_matrix((2.0, 0.5), 2)


@pytest.mark.parametrize("covariates", COVARIATES)
class TestCovariates:
    def test_have_the_stated_mean_and_covariance(self, covariates: str) -> None:
        x = features(fresh(RegressionFamily(covariance=ROTATED, covariates=covariates), n=4000)).flatten(0, 2)
        assert worst_z_score(x, torch.zeros(5)) < 4
        products = x[:, :, None] * x[:, None]
        assert worst_z_score(products, SIGMA) < 4
        assert worst_z_score(products, 1.05 * SIGMA) > 4  # the test sees five per cent

    def test_differ_in_their_radius_alone(self, covariates: str) -> None:
        """|u|^2 is chi-squared, constant, or d (1 - 2 / nu) F: directions are uniform in all."""
        u = features(fresh(RegressionFamily(covariates=covariates), n=500)).flatten(0, 2)
        square = u.square().sum(-1)
        if covariates == "sphere":
            torch.testing.assert_close(square, torch.full_like(square, 5.0), atol=1e-10, rtol=0)
        else:
            law = {"gaussian": stats.chi2(5), "student-t": stats.f(5, 5, scale=5 * 3 / 5)}
            assert stats.kstest(square.numpy(), law[covariates].cdf).pvalue > 0.01
            (other,) = law.keys() - {covariates}
            assert stats.kstest(square.numpy(), law[other].cdf).pvalue < 1e-6
        share = (u[:, 0] ** 2 / square).numpy()
        assert stats.kstest(share, stats.beta(0.5, 2.0).cdf).pvalue > 0.01


class TestWeights:
    @pytest.mark.parametrize("prior", ["identity", "inverse-covariance"])
    def test_have_the_prior_mean_and_covariance(self, prior: str) -> None:
        family = RegressionFamily(covariance=ROTATED, prior=prior, prior_mean=0.5)
        w = family.weights([0, 1], "test", 0, 20_000).flatten(0, 1)
        assert worst_z_score(w, torch.full((5,), 0.5)) < 4
        expected = SIGMA.inverse() if prior == "inverse-covariance" else torch.eye(5).double()
        centred = w - 0.5
        assert worst_z_score(centred[:, :, None] * centred[:, None], expected) < 4
        assert worst_z_score(centred[:, :, None] * centred[:, None], 1.05 * expected) > 4

    def test_are_those_of_the_prompt(self) -> None:
        family = RegressionFamily(covariance=ROTATED)
        expected = family.weights([0, 1], "test", 0, 50)[..., None]
        torch.testing.assert_close(least_squares(fresh(family)), expected, atol=1e-10, rtol=0)

    def test_labels_do_not_see_sigma_where_weights_have_its_inverse(self) -> None:
        """<w, x> = <Sigma^-1/2 v, Sigma^1/2 u> = <v, u>: what depth must undo is the covariates' covariance alone."""
        whitened = RegressionFamily(prior="inverse-covariance")
        coloured = replace(whitened, covariance=ROTATED)
        torch.testing.assert_close(fresh(coloured).answers, fresh(whitened).answers, atol=1e-10, rtol=0)
        assert (fresh(replace(coloured, prior="identity")).answers - fresh(whitened).answers).abs().max() > 0.1


class TestLabels:
    def test_of_a_linear_target_are_w_x_and_queries_hold_none(self) -> None:
        family = RegressionFamily()
        prompt, w = fresh(family), family.weights([0, 1], "test", 0, 50)
        expected = features(prompt) @ w[..., None]
        label = prompt.layout.read(prompt.tokens, "label")
        torch.testing.assert_close(label[..., :8, :], expected[..., :8, :], atol=1e-10, rtol=0)
        torch.testing.assert_close(prompt.answers, expected[..., 8:, :], atol=1e-10, rtol=0)
        assert (label[..., 8:, :] == 0).all()
        assert prompt.queries.tolist() == list(range(8, 18))
        assert prompt.tokens.dtype == torch.float64

    def test_of_nonlinear_targets_are_functions_of_w_x(self) -> None:
        linear, sign, relu = (fresh(RegressionFamily(target=t), n=2000).answers for t in ("linear", "sign", "relu"))
        assert sign.equal(linear.sign())
        torch.testing.assert_close(relu, 2**0.5 * linear.clamp(min=0), atol=1e-12, rtol=0)
        assert abs(relu.square().mean() / linear.square().mean() - 1) < 0.1

    def test_carry_noise_of_the_stated_size_in_the_context_alone(self) -> None:
        clean, noisy = fresh(RegressionFamily(), n=2000), fresh(RegressionFamily(noise=0.5), n=2000)
        assert noisy.answers.equal(clean.answers)
        assert features(noisy).equal(features(clean))
        noise = (noisy.tokens - clean.tokens)[..., -1]
        assert (noise[..., 8:] == 0).all()
        assert stats.kstest(noise[..., :8].flatten().numpy(), stats.norm(scale=0.5).cdf).pvalue > 0.01
        assert stats.kstest(noise[..., :8].flatten().numpy(), stats.norm(scale=0.53).cdf).pvalue < 0.01


class TestTraining:
    def test_prompts_have_one_query_and_its_label_as_the_answer(self) -> None:
        clean, noisy = (RegressionFamily(noise=s).training_prompt([0, 1], 4, 1000, 8, LAYOUT) for s in (0.0, 0.5))
        assert noisy.tokens.dtype == torch.float32
        assert noisy.queries.tolist() == [8]
        assert (noisy.tokens[..., 8, -1] == 0).all()
        noise = (noisy.answers - clean.answers).flatten()
        assert stats.kstest(noise.numpy(), stats.norm(scale=0.5).cdf).pvalue > 0.01
        rest = clean.answers - noisy.query_tokens[..., :5] @ least_squares(clean)
        assert rest.abs().median() < 1e-5

    def test_prompts_differ_by_batch(self) -> None:
        first, second = (RegressionFamily().training_prompt([0], index, 10, 8, LAYOUT).tokens for index in (0, 1))
        assert not first.equal(second)

    def test_tasks_are_those_of_the_pool_and_all_of_them(self) -> None:
        family = RegressionFamily(n_tasks=4)
        pool = family.pool([0, 1])
        for prompt in (
            family.training_prompt([0, 1], 2, 200, 8, LAYOUT).to(torch.float64),
            family.pool_prompt([0, 1], "test", 0, 200, 8, LAYOUT),
        ):
            known = pool.take_along_dim(prompt.task[..., None], 1)
            residual = (prompt.layout.read(prompt.context, "features") @ known[..., None])[..., 0]
            torch.testing.assert_close(residual, prompt.context[..., -1], atol=1e-5, rtol=1e-5)
            assert all(set(row.tolist()) == {0, 1, 2, 3} for row in prompt.task)

    def test_the_pool_never_changes_and_fresh_tasks_are_none_of_it(self) -> None:
        family = RegressionFamily(n_tasks=4)
        assert family.pool([0, 1]).equal(family.pool([0, 1]))
        assert replace(family, n_tasks=4, noise=1.0).pool([1])[0].equal(family.pool([0, 1])[1])
        assert fresh(family).tokens.equal(fresh(replace(family, n_tasks=None)).tokens)
        with pytest.raises(ConfigError, match="n_tasks is None"):
            RegressionFamily().pool([0])


FULL = RegressionFamily(
    covariance=ROTATED, covariates="student-t", prior="inverse-covariance", prior_mean=1.0, noise=0.1, n_tasks=7
)


@pytest.mark.parametrize("maker", ["fresh", "pool", "training"])
def test_prompts_of_a_seed_do_not_depend_on_the_others(maker: str) -> None:
    def prompt(seeds: list[int]) -> Prompt:
        if maker == "training":
            return FULL.training_prompt(seeds, 3, 6, 8, LAYOUT)
        make = FULL.fresh_prompt if maker == "fresh" else FULL.pool_prompt
        return make(seeds, "test", 3, 6, 8, LAYOUT)

    together, alone = prompt([4, 1, 9]), prompt([1])
    assert together.tokens[1].equal(alone.tokens[0])
    assert together.answers[1].equal(alone.answers[0])
    assert not together.tokens[0].equal(alone.tokens[0])


def test_a_prompt_is_made_of_any_examples() -> None:
    x, labels = torch.arange(6.0).reshape(3, 2), torch.tensor([1.0, 2.0, 3.0])
    prompt = labelled_prompt(x, labels, torch.tensor([7.0]), torch.tensor(0), labelled_layout(2))
    assert prompt.tokens.tolist() == [[0, 1, 1], [2, 3, 2], [4, 5, 0]]
    assert prompt.answers.tolist() == [[7]]
    assert labels.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"covariates": "gausian"}, "did you mean 'gaussian'"),
        ({"prior": "inverse"}, "allowed: identity, inverse-covariance"),
        ({"target": "cubic"}, "allowed: linear, sign, relu"),
        ({"noise": -1.0}, "noise is -1.0"),
        ({"noise": float("nan")}, "noise is nan"),
        ({"n_tasks": 0}, "n_tasks is 0"),
        ({"n_queries": 0}, "n_queries is 0"),
        ({"d_features": 2, "covariance": ((1.0,),)}, "2 rows of 2 numbers"),
        ({"d_features": 2, "covariance": ((1.0, 0.5), (0.4, 1.0))}, "symmetric"),
        ({"d_features": 2, "covariance": ((1.0, 2.0), (2.0, 1.0))}, "eigenvalue -1"),
    ],
)
def test_impossible_settings_are_refused(setting: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RegressionFamily(**setting)
