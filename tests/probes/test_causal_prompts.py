"""Stitched chains reward exactly what can be stitched, and kernels are derivatives ordered by graph distance."""

from collections import deque
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from algorithms.temporal_difference import LSTD, TD0, MonteCarlo, Myopic
from models.config import LinearTransformerConfig
from models.linear import LinearTransformer
from probes.behaviour import predict
from probes.causal_prompts import ages, hops, response_by, response_kernel, response_to_reward, stitching_prompt
from tasks.layout import Prompt, transition_layout

D, GAMMA = 5, 0.9
LAYOUT = transition_layout(D, discount=GAMMA)
CHAINS = stitching_prompt(LAYOUT, 22, 6)


class TestStitching:
    @pytest.mark.parametrize("n_steps", [1, 2, 3, 4])
    def test_td_reaches_one_transition_less_than_it_has_steps(self, n_steps: int) -> None:
        response = response_to_reward(TD0(n_steps, 1.7, GAMMA), CHAINS)[..., 0]
        assert (response[..., :n_steps] > 1e-3).all()
        assert not response[..., n_steps:].any()

    def test_td_on_orthogonal_features_is_tabular(self) -> None:
        """v_k <- v_k + (alpha / 3) (r_k + gamma v_{k-1} - v_k): each state is a d-th of the context, |phi|² = d / 3."""
        value = torch.zeros(D, dtype=torch.float64)
        reward = torch.tensor([1.0, 0, 0, 0, 0]).double()
        for _ in range(3):
            ahead = torch.cat([torch.zeros(1).double(), value[:-1]])
            value = value + 1.7 / 3 * (reward + GAMMA * ahead - value)
        response = response_to_reward(TD0(3, 1.7, GAMMA), CHAINS)[..., 0]
        torch.testing.assert_close(response, value.expand_as(response), rtol=0, atol=1e-12)

    def test_a_solver_reaches_all_the_way_and_myopia_nowhere(self) -> None:
        solved = response_to_reward(LSTD(1e-8, GAMMA), CHAINS)
        torch.testing.assert_close(solved, CHAINS.answers, rtol=0, atol=1e-6)
        assert not response_to_reward(Myopic(3, 1.7), CHAINS)[..., 1:, :].any()

    def test_monte_carlo_reads_the_order_of_the_context_and_not_the_graph(self) -> None:
        """Its mean response is the same at every distance, but for the rewarded transition's own reward."""
        many = stitching_prompt(LAYOUT, 22, 2000)
        response = response_to_reward(MonteCarlo(1e-6, GAMMA), many)[0, :, :, 0].mean(0)
        assert response[0] > response[1:].max() + 0.3
        assert response[1:].max() - response[1:].min() < 0.1 * response[1:].mean()

    def test_tasks_differ_and_transitions_are_whole_copies(self) -> None:
        assert CHAINS.context.shape == (1, 6, 20, 2 * D + 1)
        assert stitching_prompt(LAYOUT, 3, 2).context.shape[-2] == D
        assert len({tuple(task.flatten().tolist()) for task in CHAINS.context[0]}) == 6
        distance = hops(CHAINS)
        expected = torch.arange(D).double()
        torch.testing.assert_close(distance.eq(0).sum(-1), torch.full((1, 6, D), 4))
        rewarded = CHAINS.layout.read(CHAINS.context, "reward")[..., 0] > 0
        to_reward = torch.where(rewarded[..., None, :], distance, torch.inf).amin(-1)
        torch.testing.assert_close(to_reward, expected.expand(1, 6, D))


def test_hops_are_shortest_paths(make_prompt: Callable[..., Prompt]) -> None:
    """Against breadth-first search, state by state."""
    prompt = make_prompt(tasks=4, n=9)
    layout, found = prompt.layout, hops(prompt)
    for task in range(4):
        context = prompt.context[0, task]
        left, entered = layout.read(context, "features"), layout.read(context, "next_features") / layout.discount
        for query, token in enumerate(prompt.query_tokens[0, task]):
            distance = [float("inf")] * 9
            queue = deque([(layout.read(token[None], "features")[0], 0.0)])
            while queue:
                state, far = queue.popleft()
                for j in range(9):
                    if torch.allclose(left[j], state) and distance[j] == float("inf"):
                        distance[j] = far
                        queue.append((entered[j], far + 1))
            assert found[0, task, query].tolist() == distance
    assert found.isinf().any()
    assert found[found.isfinite()].max() >= 3


@pytest.mark.parametrize("predictor", [TD0(3, 0.6, GAMMA), LSTD(0.1, GAMMA), MonteCarlo(0.1, GAMMA)])
def test_the_kernel_of_a_learner_rebuilds_its_predictions(
    predictor: TD0 | LSTD | MonteCarlo, make_prompt: Callable[..., Prompt]
) -> None:
    """They are linear in the rewards: prediction = sum_j kernel_j reward_j."""
    prompt = make_prompt(tasks=5)
    kernel = response_kernel(predictor, prompt)
    rewards = prompt.layout.read(prompt.context, "reward")
    torch.testing.assert_close(kernel @ rewards, predictor.predict(prompt), rtol=0, atol=1e-12)


@pytest.mark.parametrize("activation", ["linear", "softmax", "softmax-over-queries"])
def test_the_kernel_of_a_network_is_its_derivative(
    activation: str, make_prompt: Callable[..., Prompt], make_network: Callable[..., LinearTransformer]
) -> None:
    prompt, h = make_prompt(), 1e-6
    model = make_network(LinearTransformerConfig(2, True, 3, activation=activation))
    kernel = response_kernel(model, prompt)
    assert kernel.shape == (2, 3, 6, 12)
    for j in (0, 7):
        up, down = prompt.tokens.clone(), prompt.tokens.clone()
        up[..., j, -1] += h
        down[..., j, -1] -= h
        slope = (predict(model, replace(prompt, tokens=up)) - predict(model, replace(prompt, tokens=down))) / (2 * h)
        torch.testing.assert_close(kernel[..., j], slope[..., 0].detach(), rtol=0, atol=1e-8)


def test_profiles_add_up_the_tokens_at_each_distance() -> None:
    """On chains the response to a reward at every token k transitions away is that of the value k states away."""
    kernel, distance = response_kernel(TD0(3, 1.7, GAMMA), CHAINS), hops(CHAINS)
    profile = response_by(distance, kernel, CHAINS, D - 1)
    expected = response_to_reward(TD0(3, 1.7, GAMMA), CHAINS)[..., 0].mean(1) / 4 * 4
    torch.testing.assert_close(profile, expected, rtol=0, atol=1e-12)
    assert not profile[0, 3:].any()


def test_the_returns_of_monte_carlo_fade_with_age_and_those_of_td_do_not(make_prompt: Callable[..., Prompt]) -> None:
    prompt = make_prompt(tasks=200, n=20)
    age = ages(prompt)
    assert age[0, 0, 0].tolist() == list(range(19, -1, -1))
    by_age = {
        name: response_by(age, response_kernel(learner, prompt), prompt, 19)[0]
        for name, learner in {"td": TD0(3, 0.6, GAMMA), "mc": MonteCarlo(0.1, GAMMA)}.items()
    }
    # the first reward counts in one return, later ones in many
    assert by_age["mc"][:10].mean() > 2 * by_age["mc"][-1]
    assert by_age["td"][:10].mean() < 2 * by_age["td"][-1]
