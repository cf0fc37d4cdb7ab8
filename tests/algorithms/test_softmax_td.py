"""Weighted-softmax TD: its limits are known learners, its errors those of its own values, softmax attention runs it."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from algorithms.softmax_td import SoftmaxTD
from algorithms.temporal_difference import transitions
from models.config import LinearTransformerConfig, Mask
from models.linear import LinearTransformer
from probes.lens import context_slot
from tasks.layout import Prompt, transition_layout
from tasks.markov_reward import TaskFamily, evaluation_prompt
from tasks.streams import uniforms

N_STEPS, GAMMA, BETA = 3, 0.9, 1.7
ALPHA = torch.tensor([0.8, 0.5, 0.6], dtype=torch.float64)


def exact(actual: Tensor, expected: Tensor, atol: float = 1e-12) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


def naive(prompt: Prompt, beta: float) -> tuple[np.ndarray, np.ndarray]:
    """The equations of the module for task 0: a dictionary of values, state by state."""
    phi, next_phi, reward = (x[0, 0].numpy() for x in transitions(prompt))
    states = {tuple(x) for x in (*phi, *next_phi, *queries(prompt)[0, 0].numpy())}
    v = dict.fromkeys(states, 0.0)

    def errors() -> np.ndarray:
        return np.array([r + GAMMA * v[tuple(b)] - v[tuple(a)] for a, b, r in zip(phi, next_phi, reward, strict=True)])

    for alpha in ALPHA.tolist():
        delta = errors()
        for x in states:
            weights = np.exp(beta * phi @ np.array(x))
            v[x] += alpha * (weights @ delta) / weights.sum()
    return np.array([v[tuple(x)] for x in queries(prompt)[0, 0].numpy()]), errors()


def queries(prompt: Prompt) -> Tensor:
    return prompt.layout.read(prompt.query_tokens, "features")


def one_hot_prompt() -> Prompt:
    """Three chains of six states with one-hot features, 40 transitions each; one state of one is never visited."""
    process = TaskFamily(n_states=6, d_features=6).sample([0], "one-hot", 0, 3)
    process = replace(process, features=torch.eye(6).expand(1, 3, 6, 6))
    draws = uniforms([0], "one-hot/rollout", 0, 3, 41)
    return evaluation_prompt(process, draws, transition_layout(6, discount=1.0)).to(torch.float64)


def test_is_the_update_of_the_paper_state_by_state(make_prompt: Callable[..., Prompt]) -> None:
    prompt = make_prompt()
    trace = SoftmaxTD(N_STEPS, ALPHA, GAMMA, BETA)(prompt)
    values, errors = naive(prompt, BETA)
    np.testing.assert_allclose(trace.predictions[-1, 0, 0, :, 0], values, atol=1e-12)
    np.testing.assert_allclose(trace.internals["td_error"][-1, 0, 0], errors, atol=1e-12)
    assert np.abs(naive(prompt, BETA + 0.1)[0] - values).max() > 1e-3


def test_a_sharp_kernel_on_one_hot_features_is_tabular_td() -> None:
    """With the mean error of each state's own visits; one without any is as near to all of them and gets the mean."""
    prompt = one_hot_prompt()
    phi, next_phi, reward = transitions(prompt)
    visits = phi.sum(-2)  # [1, tasks, states]
    assert (visits == 0).any()
    v = torch.zeros_like(visits)
    for alpha in ALPHA:
        delta = reward + ((GAMMA * next_phi - phi) @ v[..., None])[..., 0]
        own = (phi.mT @ delta[..., None])[..., 0] / visits
        v = v + alpha * torch.where(visits > 0, own, delta.mean(-1, keepdim=True))
    exact(SoftmaxTD(N_STEPS, ALPHA, GAMMA, 1000.0).predict(prompt)[..., 0], v)
    assert (SoftmaxTD(N_STEPS, ALPHA, GAMMA, 1.0).predict(prompt)[..., 0] - v).abs().max() > 1e-2


def test_a_flat_kernel_gives_every_state_the_mean(make_prompt: Callable[..., Prompt]) -> None:
    prompt = make_prompt()
    reward = transitions(prompt).reward.mean(-1)
    v = torch.zeros_like(reward)
    for alpha in ALPHA:
        v = v + alpha * (reward + (GAMMA - 1) * v)
    exact(SoftmaxTD(N_STEPS, ALPHA, GAMMA, 0.0).predict(prompt)[..., 0], v[..., None].expand(-1, -1, 6))


def test_one_step_of_size_one_is_the_kernel_smoother_of_the_rewards(make_prompt: Callable[..., Prompt]) -> None:
    prompt = make_prompt()
    phi, _, reward = transitions(prompt)
    weights = torch.exp(BETA * queries(prompt) @ phi.mT)
    smoothed = (weights * reward[..., None, :]).sum(-1) / weights.sum(-1)
    exact(SoftmaxTD(1, 1.0, GAMMA, BETA).predict(prompt)[..., 0], smoothed)


def test_the_errors_are_those_of_its_own_values(make_prompt: Callable[..., Prompt]) -> None:
    prompt = make_prompt()
    learner = SoftmaxTD(N_STEPS, ALPHA, GAMMA, BETA)
    phi, next_phi, reward = transitions(prompt)
    n = reward.shape[-1]
    asked = torch.nn.functional.pad(torch.cat([phi, next_phi], -2), (0, prompt.layout.width - phi.shape[-1]))
    everywhere = replace(
        prompt,
        tokens=torch.cat([prompt.context, asked], -2),
        queries=torch.arange(n, 3 * n),
        answers=torch.zeros(1, 3, 2 * n, 1, dtype=torch.float64),
        weights=torch.ones(1, 3, 2 * n, dtype=torch.float64),
    )
    trace = learner(everywhere)
    here, ahead = trace.predictions[..., 0].split(n, -1)
    exact(trace.internals["td_error"], reward + GAMMA * ahead - here)
    exact(learner.predict(everywhere), trace.predictions[-1])


@pytest.mark.parametrize("beta", [1.7, 6.0])
def test_its_values_are_no_linear_function_of_the_query(make_prompt: Callable[..., Prompt], beta: float) -> None:
    prompt = make_prompt()
    values, phi = SoftmaxTD(N_STEPS, ALPHA, GAMMA, beta).predict(prompt), queries(prompt)
    assert (values - phi @ torch.linalg.pinv(phi) @ values).norm() > 0.1 * values.norm()


def test_is_differentiable_in_its_constants_and_broadcasts_over_seeds(make_prompt: Callable[..., Prompt]) -> None:
    prompt = make_prompt(tasks=2, n=5, d=2)
    alpha = torch.stack([ALPHA, ALPHA / 2])[:, None].requires_grad_()
    gamma, beta = (torch.tensor([[a], [b]], dtype=torch.float64).requires_grad_() for a, b in ((0.9, 0.5), (1.0, 3.0)))

    def predict(*constants: Tensor) -> Tensor:
        return SoftmaxTD(N_STEPS, *constants).predict(prompt)

    assert torch.autograd.gradcheck(predict, (alpha, gamma, beta))
    exact(predict(alpha, gamma, beta)[1:], SoftmaxTD(N_STEPS, ALPHA / 2, 0.5, 3.0).predict(prompt))


def softmax_network(gamma: float) -> LinearTransformer:
    """Head 1 matches features with features and takes v(phi) off the reward slot; head 2 matches next features with
    features and adds gamma v(phi') to it. The prompt holds 0.9 phi'."""
    config = LinearTransformerConfig(N_STEPS, False, 3, activation="softmax", gamma=0.9, masks=(Mask(), Mask()))
    P, Q = torch.zeros(2, 1, N_STEPS, 2, 7, 7, dtype=torch.float64)
    model = LinearTransformer(config, P, Q)
    identity = torch.eye(3, dtype=torch.float64)
    with torch.no_grad():
        model.layout.block(model.P, "reward", "reward")[..., 0, 0] = torch.stack([-ALPHA, gamma * ALPHA], -1)
        model.layout.block(model.Q[:, :, 0], "features", "features")[:] = BETA * identity
        model.layout.block(model.Q[:, :, 1], "features", "next_features")[:] = BETA / 0.9 * identity
    return model


def test_softmax_attention_runs_it(make_prompt: Callable[..., Prompt]) -> None:
    """Its reward slot holds the TD error exactly. The query's next features are zero, a state like any other to the
    second head, so the network predicts v(phi_q) - gamma v(0): the learner's values up to one number per context."""
    prompt, model = make_prompt(), softmax_network(GAMMA)
    learner = SoftmaxTD(N_STEPS, ALPHA, GAMMA, BETA)
    exact(context_slot(model, prompt, "reward")[..., 0], learner(prompt).internals["td_error"])
    nowhere = replace(prompt, tokens=prompt.tokens * prompt.is_context[:, None])
    exact(model.predict(prompt), learner.predict(prompt) - GAMMA * learner.predict(nowhere))
    assert (model.predict(prompt) - learner.predict(prompt)).abs().max() > 1e-2


def test_one_head_that_does_not_bootstrap_runs_its_myopic_case(make_prompt: Callable[..., Prompt]) -> None:
    prompt = make_prompt()
    exact(softmax_network(0.0).predict(prompt), SoftmaxTD(N_STEPS, ALPHA, 0.0, BETA).predict(prompt))
