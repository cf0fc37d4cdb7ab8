"""Regression training: it lands on Theorem 1, keeps to its family, resumes exactly, and seeds are independent."""

from dataclasses import replace

import pytest
import torch

import models.train_regression
import models.training_state
from algorithms.gradient_descent import optimal_preconditioner
from models.config import ConfigError, LinearTransformerConfig, RegressionTraining
from models.linear import LinearTransformer, layout_of
from models.polish import GaussNewton
from models.regression_objective import Examples, batch_last, initial_weights, residuals, trainable
from models.train_regression import RegressionRecord, _batches, train_regression
from tasks.layout import labelled_layout
from tasks.regression import RegressionFamily, covariance_matrix

D = 3
SIGMA = covariance_matrix((1.0, 0.5, 0.25), 0)
FAMILY = RegressionFamily(d_features=D, covariance=SIGMA)
TRAININGS = {
    "adamw": RegressionTraining(context_length=6, steps=12, prompts=100, resample_every=5, stages=(), snapshot_every=5),
    "gauss-newton": RegressionTraining(context_length=6, stages=((3, 60), (2, 90))),
    "l-bfgs": RegressionTraining(context_length=6, polish="l-bfgs", stages=((3, 60), (2, 90))),
}


def config(n_layers: int = 2) -> LinearTransformerConfig:
    return LinearTransformerConfig(n_layers, False, D, tokens="labelled", covariance=SIGMA)


def run(folder, training, seeds=(0, 1), n_layers: int = 2) -> RegressionRecord:
    return train_regression(config(n_layers), training, FAMILY, seeds, folder, compiled=False)


@pytest.mark.parametrize("optimiser", TRAININGS)
@pytest.mark.parametrize("family", ["sparse", "full", "free"])
def test_training_lowers_the_loss_within_its_family(tmp_path, optimiser, family):
    one_batch = {"family": family, "resample_every": 100, "stages": TRAININGS[optimiser].stages[:1]}
    training = replace(TRAININGS[optimiser], **one_batch)
    record = run(tmp_path, training)
    assert (record.loss[-1] < record.loss[1]).all()
    masks, start = trainable(family, labelled_layout(D)), initial_weights(config(), training, (0, 1))
    for name, series in (("P", record.P), ("Q", record.Q)):
        assert torch.equal(series[0], start[name])
        assert torch.equal(series[-1][..., ~masks[name]], start[name][..., ~masks[name]])
        moved = (series[-1] != start[name]).flatten(-2)[..., masks[name].flatten()]
        last_rewrite_is_idle = (slice(None), slice(0, 1)) if name == "P" else (...,)
        assert moved[last_rewrite_is_idle].all()
    network = LinearTransformer.from_folder(tmp_path)
    assert torch.equal(network.P, record.P[-1])
    assert network.config == config()


@pytest.mark.parametrize("optimiser", TRAININGS)
@pytest.mark.parametrize("stop", [1, 4])
def test_a_killed_training_resumes_to_bit_identical_weights(tmp_path, monkeypatch, optimiser, stop):
    whole = run(tmp_path / "whole", TRAININGS[optimiser])
    monkeypatch.setattr(models.training_state, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    steps = {name: getattr(models.train_regression._State, name) for name in ("step", "polish")}
    count = 0

    def dies(name: str):
        def step(self, *arguments):
            nonlocal count
            count += 1
            if count > stop:
                raise KeyboardInterrupt
            return steps[name](self, *arguments)

        return step

    for name in steps:
        monkeypatch.setattr(models.train_regression._State, name, dies(name))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", TRAININGS[optimiser])
    monkeypatch.undo()
    resumed = run(tmp_path / "killed", TRAININGS[optimiser])
    for name in ("step", "P", "Q"):
        assert torch.equal(getattr(resumed, name), getattr(whole, name))
    torch.testing.assert_close(resumed.loss, whole.loss, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("optimiser", TRAININGS)
def test_a_seed_trains_alike_alone_and_beside_others(tmp_path, optimiser):
    alone, beside = (run(tmp_path / str(len(s)), TRAININGS[optimiser], s) for s in ((4,), (1, 4)))
    torch.testing.assert_close(alone.Q[:, 0], beside.Q[:, 1], rtol=1e-3, atol=1e-4)


def test_one_undamped_step_solves_a_single_sparse_layer(monkeypatch):
    """Its residuals are linear in Q, so Gauss-Newton lands on the least-squares solution whatever it starts from."""
    layout, training = layout_of(config(1)), RegressionTraining(family="sparse", context_length=6)
    weights = {name: w.double() for name, w in initial_weights(config(1), training, [0, 1]).items()}
    examples = Examples.read(FAMILY.training_prompt([0, 1], 0, 50, 6, layout).to(torch.float64))
    masks = trainable("sparse", layout)

    def errors(P, Q, chunk):
        return residuals(P, Q, chunk, config(1))

    polish = GaussNewton([weights["P"], weights["Q"]], [masks["P"], masks["Q"]], errors)
    monkeypatch.setattr(GaussNewton, "DAMPINGS", (0.0,))
    polish.step([Examples(*(x[..., part] for x in examples)) for part in (slice(20), slice(20, None))])
    for seed in range(2):
        moments, queries, answers = (x[..., seed, :] for x in examples)
        design = torch.einsum("in, jn -> nij", moments[-1, :D], queries).flatten(1)
        solution = torch.linalg.lstsq(design, -answers).solution.view(D, D)
        torch.testing.assert_close(weights["Q"][seed, 0, 0, :D, :D], solution, rtol=0, atol=1e-8)
    loss = errors(batch_last(weights["P"]), batch_last(weights["Q"]), examples).square().mean(-1)
    torch.testing.assert_close(polish.step([examples]), loss, rtol=0, atol=1e-12)


@pytest.mark.parametrize("family", ["sparse", "free"])
def test_a_single_layer_approaches_theorem_one(tmp_path, family):
    record = run(tmp_path, RegressionTraining(family=family, context_length=20, stages=((6, 20_000),)), [0], 1)
    gauge = record.P[-1, 0, 0, 0, -1, -1].double()
    found = -gauge * record.Q[-1, 0, 0, 0, :D, :D].double()
    expected = optimal_preconditioner(torch.tensor(SIGMA, dtype=torch.float64), 20)
    assert (found - expected).norm() / expected.norm() < 0.04
    assert (found - torch.linalg.inv(torch.tensor(SIGMA, dtype=torch.float64))).norm() / expected.norm() > 0.2


def test_no_stage_reads_prompts_that_were_read_before():
    training = RegressionTraining(steps=7, prompts=10, resample_every=3, stages=((2, 12_000), (1, 3000)))
    read = [_batches(training, step) for step in range(10)]
    assert read[:7] == [[(index, 10)] for index in (0, 0, 0, 1, 1, 1, 2)]
    assert read[7] == read[8] == [(3, 5000), (4, 5000), (5, 2000)]
    assert read[9] == [(6, 3000)]
    with pytest.raises(ValueError, match="step 10 comes after the last one, 9"):
        _batches(training, 10)


def test_what_cannot_be_trained_is_refused(tmp_path):
    for wrong in (
        LinearTransformerConfig(1, False, D),
        LinearTransformerConfig(1, False, D, "relu", tokens="labelled"),
    ):
        with pytest.raises(ConfigError, match=r"regression trains labelled tokens and linear attention"):
            train_regression(wrong, TRAININGS["adamw"], FAMILY, [0], tmp_path)
    with pytest.raises(ConfigError, match="did you mean 'full'"):
        RegressionTraining(family="ful")
    with pytest.raises(ConfigError, match="did you mean 'l-bfgs'"):
        RegressionTraining(polish="lbfgs")
