"""What training minimises is the hooked network's error, with its gradients; families are constraints."""

import pytest
import torch

from models.config import LinearTransformerConfig, RegressionTraining
from models.linear import LinearTransformer, layout_of
from models.regression_objective import Examples, batch_last, initial_weights, residuals, trainable
from tasks.regression import RegressionFamily
from tasks.streams import normals

FAMILY = RegressionFamily(d_features=3, noise=0.1)


def setting(n_layers: int, looped: bool = False):
    """A network with random weights, a float64 prompt with one query each, and its examples."""
    config = LinearTransformerConfig(n_layers, looped, 3, tokens="labelled")
    P, Q = (0.2 * normals([0, 1], name, 0, config.n_weight_layers, 1, 4, 4).double() for name in "PQ")
    prompt = FAMILY.training_prompt([0, 1], 0, 6, 7, layout_of(config)).to(torch.float64)
    return config, LinearTransformer(config, P, Q), prompt, Examples.read(prompt)


@pytest.mark.parametrize(("n_layers", "looped"), [(1, False), (3, False), (3, True), (4, False)])
def test_residuals_and_their_gradients_are_the_hooked_networks(n_layers, looped):
    config, network, prompt, examples = setting(n_layers, looped)
    found = residuals(batch_last(network.P), batch_last(network.Q), examples, config)
    expected = (network.predict(prompt) - prompt.answers)[..., 0, 0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    ours = torch.autograd.grad(found.square().mean(), (network.P, network.Q))
    theirs = torch.autograd.grad(expected.square().mean(), (network.P, network.Q))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
    assert all(gradient.abs().max() > 1e-4 for gradient in ours)


def test_every_prompt_may_have_weights_of_its_own():
    config, network, _prompt, examples = setting(3)
    P, Q = (batch_last(w).detach() for w in (network.P, network.Q))
    p, q = (w.expand(*w.shape[:-1], 6).clone().requires_grad_() for w in (P, Q))
    r = residuals(p, q, examples, config)
    torch.testing.assert_close(r, residuals(P, Q, examples, config), rtol=0, atol=1e-12)
    own = torch.autograd.grad(r.sum(), (p, q))
    p, q = (w[..., :1].detach().requires_grad_() for w in (p, q))
    one = Examples(*(x[..., :1] for x in examples))
    alone = torch.autograd.grad(residuals(p, q, one, config).sum(), (p, q))
    torch.testing.assert_close([g[..., :1] for g in own], list(alone), rtol=0, atol=1e-12)


def test_members_are_the_examples_of_each_seed():
    *_, examples = setting(1)
    for i, whole in enumerate(examples):
        assert torch.equal(torch.cat([member[i] for member in examples.members()], -2), whole)


def test_families_free_the_blocks_that_the_paper_names():
    layout = layout_of(LinearTransformerConfig(1, False, 2, tokens="labelled"))
    count = {
        name: [int(mask.sum()) for mask in trainable(name, layout).values()] for name in ("sparse", "full", "free")
    }
    assert count == {"sparse": [0, 4], "full": [4, 4], "free": [9, 9]}
    full = trainable("full", layout)
    for mask in full.values():
        assert not mask[-1].any()
        assert not mask[:, -1].any()


@pytest.mark.parametrize("family", ["sparse", "full", "free"])
def test_fixed_weights_start_as_gradient_descents(family):
    config = LinearTransformerConfig(2, False, 3, tokens="labelled")
    weights = initial_weights(config, RegressionTraining(family=family, initial_std=0.1), [3, 5])
    masks = trainable(family, layout_of(config))
    expected = {"P": torch.diag(torch.tensor([0.0, 0.0, 0.0, 1.0])), "Q": torch.zeros(4, 4)}
    for name, weight in weights.items():
        assert torch.equal(weight[..., ~masks[name]], expected[name][~masks[name]].expand(2, 2, 1, -1))
        assert (weight[..., masks[name]] != 0).all()
    alone = initial_weights(config, RegressionTraining(family=family, initial_std=0.1), [5])
    assert torch.equal(alone["Q"][0], weights["Q"][1])
