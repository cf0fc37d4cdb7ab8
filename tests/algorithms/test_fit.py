"""Fits find planted constants exactly, minimise what is reported, and never fit a richer rival worse than a simpler."""

import math

import pytest
import torch

from algorithms.bank import NESTING, REGRESSION, RIVALS, build, next_richer, one_function, richer
from algorithms.fit import (
    _at_bound,
    _linearise,
    _residuals,
    _Space,
    _Target,
    converges,
    disagreement,
    fit_bank,
    square_mean,
)
from algorithms.learner import constants, values_of
from tasks.layout import labelled_layout
from tasks.regression import RegressionFamily

BANKS = ({*RIVALS, "softmax-td"}, {*REGRESSION})


@pytest.fixture
def prompt_for(make_prompt):
    def make(names, tasks):
        """Prompts of the tokens that a bank reads: six queries, three features."""
        if "gd" not in names:
            return make_prompt(tasks=tasks)
        return RegressionFamily(3, n_queries=6).fresh_prompt([0], "test", 0, tasks, 12, labelled_layout(3))

    return make


def draws(*shape, low=0.0, high=1.0):
    generator = torch.Generator().manual_seed(0)
    return low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)


def planted(name, n_steps, shared, seeds, d=3):
    """A learner with constants [seeds, 1, ...] that no start equals."""
    shapes = _Space(name, n_steps, shared, d).shapes
    ranges = {"step_size": (0.4, 1.6), "gamma": (0.5, 0.95), "lam": (0.2, 0.7), "ridge": (0.05, 0.5)}
    values = {key: draws(seeds, 1, *shape, low=ranges.get(key, (-0.3, 0.3))[0], high=ranges.get(key, (-0.3, 0.3))[1])
              for key, shape in shapes.items()}  # fmt: skip
    if name == "preconditioned-td":
        values["preconditioner"] = values["preconditioner"] + torch.eye(d, dtype=torch.float64)
    return build(name, n_steps, values), values


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("name", RIVALS)
def test_a_learner_fits_itself_exactly(make_prompt, name, shared):
    prompt = make_prompt(tasks=30)
    learner, _ = planted(name, 3, shared, seeds=2)
    target = learner.predict(prompt).expand(2, -1, -1, -1)
    fit = fit_bank(target, prompt, n_steps=3, shared=shared, rivals=[name])[name]
    left = disagreement(target, fit.learner.predict(prompt), prompt)
    if name == "zero":
        assert (left == 0).all()
        return
    assert left.max() < 1e-12
    torch.testing.assert_close(fit.disagreement, left.mean(-1).expand(2), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", [name for name in RIVALS if name not in ("zero", "reward-average")])
def test_looped_constants_are_recovered(make_prompt, name):
    prompt = make_prompt(tasks=30)
    learner, values = planted(name, 3, True, seeds=2)
    fit = fit_bank(learner.predict(prompt), prompt, n_steps=3, shared=True, rivals=[name])[name]
    for key, value in values.items():
        torch.testing.assert_close(fit.constants[key], value, atol=1e-5, rtol=0)


def test_what_is_reported_is_what_is_minimised(make_prompt):
    """At the optimum no constant can be moved to lower the mean disagreement of the fitting tasks."""
    prompt = make_prompt(tasks=20)
    target = build("td0", 3, {"gamma": 0.6}).predict(prompt) + 0.1 * prompt.answers
    fit = fit_bank(target, prompt, n_steps=3, shared=True, rivals=["td0"])["td0"]

    def reported(values):
        return disagreement(target, build("td0", 3, values).predict(prompt), prompt).mean()

    best = reported(fit.constants)
    torch.testing.assert_close(best, fit.disagreement[0], atol=1e-12, rtol=0)
    for key in fit.constants:
        for step in (-1e-2, 1e-2):
            assert reported({**fit.constants, key: fit.constants[key] + step}) > best


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("names", BANKS, ids=["values", "regression"])
def test_a_richer_rival_never_fits_worse(prompt_for, names, shared):
    prompt = prompt_for(names, tasks=20)
    noise = torch.randn(1, 20, 6, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fits = fit_bank(noise, prompt, n_steps=3, shared=shared, rivals=names)
    above = richer(3, shared)
    for simple in names:
        for rich in above[simple] & names:
            assert fits[rich].disagreement <= fits[simple].disagreement + 1e-12, (simple, rich)


def test_a_rival_that_is_not_linear_in_the_query_is_fitted_to_every_query(make_prompt):
    prompt = make_prompt(tasks=20)
    values = {"step_size": torch.tensor([[[0.8]], [[1.5]]]), "gamma": torch.tensor([[0.7], [0.4]])}
    values = {key: value.double() for key, value in values.items()}
    values["inverse_temperature"] = torch.tensor([[2.0], [4.0]]).double()
    target = build("softmax-td", 3, values).predict(prompt)
    fit = fit_bank(target, prompt, n_steps=3, shared=True, rivals=["softmax-td", "td0"])
    for key, value in values.items():
        torch.testing.assert_close(fit["softmax-td"].constants[key], value, atol=1e-5, rtol=0)
    assert (fit["softmax-td"].disagreement < 1e-10).all()
    assert (fit["td0"].disagreement > 0.01).all()


@pytest.mark.parametrize("name", [name for name in RIVALS if name != "zero"])
def test_the_jacobian_is_exact(make_prompt, name):
    prompt = make_prompt(tasks=4)
    target = _Target.read(prompt.answers, prompt)
    space = _Space(name, 3, False, 3)
    x = space.starts()[0][None] + 0.01
    owner = torch.zeros(1, dtype=torch.int64)
    residuals, jacobian = _linearise(space, target, x, owner)
    torch.testing.assert_close(residuals, _residuals(space, target, x, owner))
    step = 1e-5 * torch.eye(x.shape[1], dtype=torch.float64)
    both = [_residuals(space, target, x + sign * step, owner.expand(len(step))) for sign in (1, -1)]
    torch.testing.assert_close(jacobian[0].mT, (both[0] - both[1]) / 2e-5, atol=1e-7, rtol=1e-6)


def test_the_reduced_problem_is_the_reported_criterion(make_prompt):
    """E (f - g)^2 / E f^2 = |R w - y|^2 / E f^2 + rest for any f, even one that is not linear in the query."""
    prompt = make_prompt(tasks=5)
    f = prompt.answers.square()
    learner = build("td0", 2, {"step_size": torch.tensor([[[0.7]]]), "gamma": torch.tensor([[0.4]])})
    target = _Target.read(f, prompt)
    reduced = target.scale * (learner.predict(target.prompt)[..., 0] - target.y).square().sum(-1)
    expected = disagreement(f, learner.predict(prompt), prompt).mean()
    torch.testing.assert_close(reduced.sum() + target.rest[0], expected, atol=1e-10, rtol=0)


def test_constants_stay_within_their_bounds(make_prompt):
    """A negative step size would fit perfectly; the bounds forbid it."""
    prompt = make_prompt(tasks=20)
    fits = fit_bank(-build("td0", 3).predict(prompt), prompt, n_steps=3, shared=True)
    for name, fit in fits.items():
        for key, bounds in constants(RIVALS[name]).items():
            assert bounds.low <= fit.constants[key].min() <= fit.constants[key].max() <= bounds.high
    assert fits["td0"].disagreement > 0.9


def test_tasks_on_which_the_subject_diverges_are_left_out(make_prompt):
    prompt = make_prompt(tasks=20)
    target = build("td0", 3, {"gamma": 0.6}).predict(prompt).clone()
    target[:, 3] = torch.nan
    target[:, 5] = 1e9
    assert converges(target, prompt)[0].logical_not().nonzero()[:, 0].tolist() == [3, 5]
    fit = fit_bank(target, prompt, n_steps=3, shared=True, rivals=["td0"])["td0"]
    torch.testing.assert_close(fit.constants["gamma"], torch.tensor([[0.6]], dtype=torch.float64))
    nowhere = fit_bank(target * torch.nan, prompt, n_steps=3, shared=True, rivals=["td0"])["td0"]
    assert nowhere.constants["gamma"].isnan().all()


def test_constants_are_counted_per_step_unless_shared(make_prompt):
    prompt = make_prompt(tasks=8)
    target = build("td0", 3).predict(prompt)
    fits = {shared: fit_bank(target, prompt, n_steps=3, shared=shared) for shared in (True, False)}
    counts = {shared: {name: fit.n_constants for name, fit in bank.items()} for shared, bank in fits.items()}
    assert counts[True]["td0"] == 2
    assert counts[False]["td0"] == 4
    assert counts[True]["preconditioned-td"] == 10
    assert counts[False]["td-plus-plus"] == 10
    assert counts[False]["reward-average"] == 1
    assert counts[False]["zero"] == 0


def test_disagreement_by_hand(make_prompt):
    prompt = make_prompt(tasks=1)
    f, g = prompt.answers, torch.zeros_like(prompt.answers)
    weights = prompt.weights[0, 0] / prompt.weights[0, 0].sum()
    assert square_mean(f, prompt).item() == pytest.approx((weights * f[0, 0, :, 0] ** 2).sum().item())
    assert disagreement(f, g, prompt).item() == pytest.approx(1)
    assert disagreement(f, 0.5 * f, prompt).item() == pytest.approx(0.25)
    assert disagreement(g, g, prompt).item() == 0
    assert math.isnan(disagreement(g, f, prompt).item())


@pytest.mark.parametrize("names", BANKS, ids=["values", "regression"])
def test_the_nesting_is_what_the_learners_do(prompt_for, names):
    """Every richer rival, at the constants that the warm start gives it, predicts what the simpler one predicts."""
    prompt = prompt_for(names, tasks=3)
    for shared, n_steps in ((True, 3), (False, 3), (True, 1), (False, 1)):
        above = next_richer(n_steps, shared)
        for simple in above.keys() & names:
            learner, values = planted(simple, n_steps, shared, seeds=2)
            for rich in {*above[simple]} & names:
                space = _Space(rich, n_steps, shared, 3)
                embedded = space.predict(space.embed(values, 2)[:, None], prompt)
                torch.testing.assert_close(embedded, learner.predict(prompt).flatten(-2).expand_as(embedded))


def test_reward_averaging_is_not_a_looped_myopic_learner(make_prompt):
    prompt = make_prompt(tasks=20)
    target = build("reward-average", 3).predict(prompt)
    assert "myopic" in NESTING["reward-average"]
    assert "myopic" not in richer(3, True)["reward-average"]
    assert fit_bank(target, prompt, n_steps=3, shared=True, rivals=["myopic"])["myopic"].disagreement > 1e-3
    assert fit_bank(target, prompt, n_steps=3, shared=False, rivals=["myopic"])["myopic"].disagreement < 1e-12


def test_the_nesting_is_closed():
    above = richer(3, False)
    assert above["zero"] >= {"reward-average", "myopic", "td0", "td-plus-plus", "average-reward-td"}
    assert above["td-lambda"] == frozenset()
    assert all(above[middle] <= above[simple] for simple in above for middle in above[simple])


def test_at_one_step_the_class_is_one_function(make_prompt):
    prompt = make_prompt(tasks=3)
    step = torch.tensor([[[0.7]]], dtype=torch.float64)
    reference = build("reward-average", 1, {"step_size": step}).predict(prompt)
    for name in one_function("td0", 1):
        space = _Space(name, 1, True, 3)
        same = space.predict(space.embed({"step_size": step}, 1)[:, None], prompt)
        torch.testing.assert_close(same, reference.flatten(-2), atol=1e-12, rtol=0)
    assert one_function("td0", 2) == {"td0"}


def test_fits_say_where_they_stopped_at_a_bound(make_prompt):
    prompt = make_prompt(tasks=20)
    gammas = torch.tensor([[0.7], [0.0], [4.0]], dtype=torch.float64)
    target = build("td0", 3, {"step_size": torch.full((3, 1, 1), 0.5), "gamma": gammas}).predict(prompt)
    fits = fit_bank(target, prompt, n_steps=3, shared=True, rivals=["zero", "td0", "monte-carlo"])
    # a discount of zero is the simpler learner's, so it has not stopped short
    assert fits["td0"].at_bound["gamma"].tolist() == [False, False, True]
    assert not fits["td0"].at_bound["step_size"].any()
    assert fits["zero"].at_bound == {}


def test_one_of_several_numbers_at_a_bound_is_enough():
    bounds = constants(RIVALS["td-plus-plus"])["from_next"]
    value = torch.tensor([[[0.1, 0.2]], [[0.1, bounds.high]], [[bounds.low, 0.1]], [[torch.nan, torch.nan]]])
    assert _at_bound(value, "from_next", bounds).tolist() == [False, True, True, False]


def test_a_learner_up_to_its_unit_fits_itself_with_the_scale(make_prompt):
    """Three times TD(0)'s values: no TD(0) of three steps, and exactly 3 TD(0); richer rivals inherit the unit."""
    prompt = make_prompt(tasks=30)
    learner, _ = planted("td0", 3, True, seeds=1)
    target = 3 * learner.predict(prompt)
    names = ["td0", "td-plus-plus"]
    plain = fit_bank(target, prompt, n_steps=3, shared=True, rivals=names)
    scaled = fit_bank(target, prompt, n_steps=3, shared=True, rivals=names, scaled=True)
    assert plain["td0"].disagreement.item() > 1e-3
    for name in names:
        assert scaled[name].disagreement.item() < 1e-10
        assert scaled[name].n_constants == plain[name].n_constants + 1
    torch.testing.assert_close(scaled["td0"].constants["scale"], torch.full((1, 1), 3.0, dtype=torch.float64))
    built = build("td0", 3, values_of(scaled["td0"].learner))
    assert torch.equal(built.predict(prompt), scaled["td0"].learner.predict(prompt))
    assert torch.equal(built(prompt).predictions[-1], built.predict(prompt))
