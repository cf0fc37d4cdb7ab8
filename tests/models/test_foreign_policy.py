"""A module from elsewhere is a policy with a few lines; what cannot be read as one is refused with one clear line."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot, pad

from algorithms.acting import follow
from algorithms.acting_bank import acting_learner
from analyses.answer import render
from analyses.inspect_policy import report
from models.config import ConfigError
from models.foreign_policy import AdaptedPolicy, InspectablePolicy, PolicyShape, require_causal
from models.hooked import HookedRootModule, HookPoint, run_with_cache
from models.networks import initial_weights
from models.policy import PolicyTransformer
from models.policy_config import PolicyConfig
from probes.contexts import designed
from tasks.bandits import BanditFamily
from tasks.interaction import Interaction

SHAPE = PolicyShape(n_observations=1, n_actions=3, n_ctx=16, n_layers=1, d_model=6)
TEMPERATURE = 0.3


class Averaging(HookedRootModule):
    """Reads (one-hot action, its reward) of the step before, sums them over time, and says the means over T."""

    def __init__(self) -> None:
        super().__init__()
        self.hook_sums = HookPoint()
        self.setup()

    def forward(self, tokens: Tensor) -> Tensor:
        pulls, rewards = self.hook_sums(tokens.cumsum(-2)).chunk(2, -1)
        return torch.where(pulls > 0, rewards / pulls.clamp(min=1), 1.0) / TEMPERATURE


def tokens(history: Interaction) -> Tensor:
    arm = one_hot(history.action, history.n_actions).to(history.reward)
    return pad(torch.cat([arm, arm * history.reward[..., None]], -1)[..., :-1, :], (0, 0, 1, 0))


def adapted(change: Callable[[Tensor], Tensor] = lambda logits: logits) -> AdaptedPolicy:
    return AdaptedPolicy(Averaging(), SHAPE, tokens, change)


def contexts() -> Interaction:
    history = designed(BanditFamily(n_arms=3), 16, 4, "test")
    return history.each(lambda x: x.double() if x.is_floating_point() else x)


def test_its_laws_are_those_of_the_algorithm_that_it_computes() -> None:
    mean = acting_learner("empirical-mean", {"temperature": TEMPERATURE, "lapse": 0.0, "initial": 1.0})
    torch.testing.assert_close(adapted().laws(contexts()), follow(mean, contexts()).laws, atol=1e-10, rtol=0)


def test_its_hooks_stay_at_hand() -> None:
    flat = contexts().each(lambda x: x.flatten(0, 1))
    cache = run_with_cache(adapted().module, tokens(flat), ["hook_sums"])
    assert cache["hook_sums"].shape == (12, 16, 6)


def test_it_is_inspected_as_ours_are_and_its_algorithm_is_named() -> None:
    found = report(adapted(), "bernoulli-bandit", context_length=8, rivals=("random", "empirical-mean"), contexts=4)
    assert found["verdict"]["learners"] == ["empirical-mean"]
    assert found["subject"]["model"] == "foreign policy"
    assert "foreign policy, 1 layer, d = 6" in render(found)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda logits: logits[..., :2], r"logits of shape \[12, 16, 2\]; needed: .* \[12, 16, 3\]"),
        (lambda logits: logits[:, 1:], r"logits of shape \[12, 15, 3\]"),
        (lambda logits: logits.where(logits < 3, torch.nan), "of 576 logits are NaN or infinite"),
        (lambda logits: logits.long(), "torch.int64; logits need a floating-point type"),
    ],
)
def test_what_is_no_law_is_refused(change: Callable[[Tensor], Tensor], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        adapted(change).laws(contexts())


def test_who_reads_the_future_is_refused() -> None:
    history = contexts()
    require_causal(adapted(), history)
    with pytest.raises(ConfigError, match=r"laws up to step 8 change by .* shift actions and rewards by one step"):
        require_causal(adapted(lambda logits: logits.roll(-1, -2)), history)
    with pytest.raises(ConfigError, match="shift actions and rewards"):
        require_causal(replace(adapted(), tokens=lambda past: pad(past.done[..., None].double(), (0, 5))), history)


def test_shapes_are_checked_and_ours_is_an_inspectable_policy_too() -> None:
    with pytest.raises(ConfigError, match="n_actions is 0; allowed"):
        replace(SHAPE, n_actions=0)
    config = PolicyConfig(n_observations=1, n_actions=3, n_ctx=16, d_model=8, n_layers=1, n_heads=1, d_mlp=8)
    ours = PolicyTransformer(config, initial_weights(config, [0, 1]))
    assert isinstance(ours, InspectablePolicy)
    require_causal(ours, contexts())
