"""The policy transformer is its equations; cache, recomputation and all prefixes at once are one function."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from scipy.special import erf, softmax
from torch import Tensor

from algorithms.acting import ActingLearner, follow, interact
from models.config import ConfigError
from models.hooked import run_with_cache, run_with_hooks
from models.networks import initial_weights
from models.policy import PolicyTransformer
from models.policy_actor import act
from models.policy_config import PolicyConfig
from models.policy_tokens import aimed_returns, hindsight_returns, history_tokens
from models.rotary import rotate
from tasks.interaction import Interaction, Step
from tasks.mdps import MDPFamily
from tasks.streams import normals, uniforms

SMALL = PolicyConfig(3, 4, 6, d_model=8, n_heads=2, d_mlp=10, critic=True, reward_shift=0.5, reward_scale=0.25)
CONFIGS = {
    "step": SMALL,
    "separate": replace(SMALL, tokens="separate"),
    "transition": replace(SMALL, tokens="transition"),
    "transition, returns": replace(SMALL, tokens="transition", returns=True, target_return=2.0),
    "rotary": replace(SMALL, positions="rotary"),
    "no positions": replace(SMALL, positions="none"),
    "linear": replace(SMALL, attention="linear"),
    "separate, linear, rotary": replace(SMALL, tokens="separate", attention="linear", positions="rotary"),
    "returns": replace(SMALL, returns=True, return_scale=2.0, target_return=3.0),
    "separate, returns": replace(SMALL, tokens="separate", returns=True, target_return=-1.0),
}
EVERY = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def network(config: PolicyConfig, seeds: int = 2) -> PolicyTransformer:
    """Float64 weights and biases of a scale at which everything matters."""
    shapes = config.weight_shapes.items()
    return PolicyTransformer(config, {n: 0.6 * normals(range(seeds), f"test/{n}", 0, *s).double() for n, s in shapes})


def history(steps: int = 6, seeds: int = 2, tasks: int = 3, config: PolicyConfig = SMALL) -> Interaction:
    seen, done, reward, after, ends = uniforms(range(seeds), "test/history", 0, 5, tasks, steps).double().unbind(1)
    observations, actions = config.n_observations, config.n_actions
    numbers = ((seen * observations).long(), (done * actions).long(), reward, (after * observations).long())
    return Interaction(*numbers, ends < 0.25, observations, actions)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def normalised(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


def naive(model: PolicyTransformer, past: Interaction, seed: int, task: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits and values of one seed and task, token by token, head by head (no rotary positions)."""
    config, w = model.config, {name: p[seed].detach().numpy() for name, p in model.named_parameters()}
    tokens = history_tokens(config, past, aimed_returns(past, config.target_return))[seed, task].numpy()
    per = model.tokens_per_step
    x = tokens @ w["W_E"] + (w["W_pos"][np.arange(len(tokens)) // per] if config.positions == "learned" else 0)
    for layer in range(config.n_layers):
        own = {name: value[layer] for name, value in w.items() if value.shape[:1] == (config.n_layers,)}
        read, out = normalised(x), np.zeros_like(x)
        for head in range(config.n_heads):
            q, k, v = (read @ own[f"W_{name}"][head] + own[f"b_{name}"][head] for name in "QKV")
            for i in range(len(x)):
                scores = k[: i + 1] @ q[i] / np.sqrt(config.d_head)
                pattern = softmax(scores) if config.attention == "softmax" else scores / (i + 1)
                out[i] += (pattern @ v[: i + 1]) @ own["W_O"][head]
        x = x + out + own["b_O"]
        hidden = normalised(x) @ own["W_in"] + own["b_in"]
        x = x + (hidden * (1 + erf(hidden / np.sqrt(2))) / 2) @ own["W_out"] + own["b_out"]
    x = normalised(x[::per])
    return x @ w["W_U"] + w["b_U"], (x @ w["W_value"] + w["b_value"])[:, 0]


@pytest.mark.parametrize("config", [c for c in CONFIGS.values() if c.positions != "rotary"], ids=str)
def test_forward_is_the_equations_token_by_token(config: PolicyConfig) -> None:
    model, past = network(config), history()
    resid = model(past)
    for seed in range(2):
        for task in range(3):
            logits, values = naive(model, past, seed, task)
            np.testing.assert_allclose(model.read_out(resid)[seed, task].detach(), logits, rtol=0, atol=1e-10)
            np.testing.assert_allclose(model.read_values(resid)[seed, task].detach(), values, rtol=0, atol=1e-10)


@EVERY
@pytest.mark.parametrize("steps", [6, 9])
def test_cache_recomputation_and_all_prefixes_are_one_law(config: PolicyConfig, steps: int) -> None:
    """Beyond the window, too: there the last n_ctx steps are a history of their own, but for the return asked for."""
    model, past = network(config), history(steps)
    laws = model.laws(past)
    close(laws.sum(-1), torch.ones(2, 3, steps).double())
    close(follow(model, past).laws, laws)
    for t in range(steps):
        window = past.each(lambda x, t=t: x[..., max(0, t + 1 - config.n_ctx) : t + 1])
        if t < config.n_ctx or not config.returns:
            close(torch.softmax(model.read_out(model(window)), -1)[..., -1, :], laws[..., t, :])


@EVERY
def test_an_actor_does_what_the_policy_does(config: PolicyConfig) -> None:
    """Where laws agree to rounding, draws of actions do, and so all that follows."""
    tasks = MDPFamily("ring", n_states=3, n_actions=2).draw([0, 1], "test", 0, 5)
    model = network(replace(config, n_observations=tasks.n_observations, n_actions=tasks.n_actions))
    assert isinstance(model, ActingLearner)
    acted = interact(model, tasks, 6, seeds=[0, 1], purpose="test/act")
    fast = act(model, tasks, 6, seeds=[0, 1], purpose="test/act")
    assert all(torch.equal(getattr(fast, f.name), getattr(acted, f.name)) for f in fields(Step))
    with pytest.raises(ConfigError, match="7 steps; this policy sees 6"):
        act(model, tasks, 7, purpose="test/act")


def test_a_window_of_one_step_sees_what_is_seen_and_nothing_else() -> None:
    model, past = network(replace(SMALL, n_ctx=1)), history(4)
    laws = model.laws(past)
    close(follow(model, past).laws, laws)
    other = replace(past, action=(past.action + 1) % 4, reward=past.reward + 1)
    close(model.laws(other), laws)


def test_a_state_stays_as_it_is_when_it_is_updated_twice() -> None:
    model, past = network(SMALL), history()
    state = model.start(past.reward[..., 0], 3, 4)
    for t in range(2):
        state = model.update(state, past.at(t))
    before = {name: x.clone() for name, x in state.items()}
    law = model.law(state, past.observation[..., 2])
    model.update(state, replace(past.at(2), reward=past.reward[..., 2] + 5))
    assert all(torch.equal(x, state[name]) for name, x in before.items())
    close(model.law(state, past.observation[..., 2]), law)


@EVERY
def test_laws_know_the_past_and_not_the_future(config: PolicyConfig) -> None:
    model, past = network(config), history()
    changed = past.reward.clone()
    changed[..., 3] += 1.0
    moved = (model.laws(replace(past, reward=changed)) - model.laws(past)).abs().amax((0, 1, 3))
    assert (moved[:4] == 0).all()
    assert (moved[4:] > 1e-6).all()
    action = past.action.clone()
    action[..., 3] = (action[..., 3] + 1) % 4
    moved = (model.laws(replace(past, action=action)) - model.laws(past)).abs().amax((0, 1, 3))
    assert (moved[:4] == 0).all()
    assert (moved[4:] > 1e-6).all()


def test_seeds_are_independent_and_may_share_a_history() -> None:
    model, past = network(SMALL), history(seeds=1)
    laws, acted = model.laws(past), follow(model, past).laws
    assert laws.shape == (2, 3, 6, 4)
    close(acted, laws)
    for seed in range(2):
        alone = PolicyTransformer(SMALL, {n: w.detach()[seed : seed + 1] for n, w in model.named_parameters()})
        close(alone.laws(past)[0], laws[seed])
        laws[seed].sum().backward(retain_graph=True)
        assert all(p.grad is None or (p.grad[1 - seed] == 0).all() for p in model.parameters())
        model.zero_grad()


def test_rotary_scores_depend_on_differences_of_time() -> None:
    q, k = normals([0, 1], "test/rotary", 0, 2, 6).double()[:, None].expand(2, 5, 2, 6)
    scores = {
        start: torch.einsum("qhd,khd->hqk", *(rotate(x, torch.arange(start, start + 5)) for x in (q, k)))
        for start in (0, 7)
    }
    close(scores[0], scores[7])
    close(scores[0].diagonal(0, -2, -1), torch.einsum("qhd,qhd->hq", q, k))
    assert (scores[0][:, 4, 0] - scores[0][:, 0, 0]).abs().min() > 1e-3


def test_hooks_see_and_edit_what_transformer_lens_names() -> None:
    model, past = network(SMALL), history()
    shapes = {
        "hook_tokens": (2, 3, 6, 10),
        "hook_embed": (2, 3, 6, 8),
        "hook_pos_embed": (2, 1, 6, 8),
        "blocks.1.hook_resid_pre": (2, 3, 6, 8),
        "blocks.1.ln1.hook_normalized": (2, 3, 6, 8),
        "blocks.1.attn.hook_q": (2, 3, 6, 2, 4),
        "blocks.1.attn.hook_k": (2, 3, 6, 2, 4),
        "blocks.1.attn.hook_v": (2, 3, 6, 2, 4),
        "blocks.1.attn.hook_attn_scores": (2, 3, 2, 6, 6),
        "blocks.1.attn.hook_pattern": (2, 3, 2, 6, 6),
        "blocks.1.attn.hook_z": (2, 3, 6, 2, 4),
        "blocks.1.hook_attn_out": (2, 3, 6, 8),
        "blocks.1.hook_resid_mid": (2, 3, 6, 8),
        "blocks.1.ln2.hook_normalized": (2, 3, 6, 8),
        "blocks.1.mlp.hook_pre": (2, 3, 6, 10),
        "blocks.1.mlp.hook_post": (2, 3, 6, 10),
        "blocks.1.hook_mlp_out": (2, 3, 6, 8),
        "blocks.1.hook_resid_post": (2, 3, 6, 8),
    }
    cache = run_with_cache(model, past, list(shapes))
    assert {name: tuple(x.shape) for name, x in cache.items()} == shapes
    close(cache["blocks.1.attn.hook_pattern"].sum(-1), torch.ones(2, 3, 2, 6).double())
    close(torch.softmax(model.read_out(cache["blocks.1.hook_resid_post"]), -1), model.laws(past))
    cut = run_with_hooks(model, past, [("blocks.1.attn.hook_pattern", lambda x, hook: x * 0)])
    assert (model.read_out(cut) - model.read_out(model(past))).abs().max() > 1e-3


def test_written_out_and_fused_attention_agree() -> None:
    model, past = network(SMALL), history()
    fused = model(past)
    close(run_with_hooks(model, past, [("blocks.0.attn.hook_attn_scores", lambda x, hook: x)]), fused)


def test_returns_run_to_the_end_of_the_episode() -> None:
    past = history(5, 1, 1)
    past = replace(
        past,
        reward=torch.tensor([[[1.0, 2.0, 4.0, 8.0, 16.0]]]),
        done=torch.tensor([[[False, True, False, False, False]]]),
    )
    assert hindsight_returns(past).tolist() == [[[3.0, 2.0, 28.0, 24.0, 16.0]]]
    assert aimed_returns(past, 10.0).tolist() == [[[10.0, 9.0, 10.0, 6.0, -2.0]]]


def test_rewards_are_read_in_standard_units() -> None:
    tokens = history_tokens(SMALL, history(), torch.zeros(2, 3, 6).double())
    layout = network(SMALL).layout
    close(layout.read(tokens, "reward")[..., 1:, 0], (history().reward[..., :-1] - 0.5) / 0.25)
    assert (layout.read(tokens, "acted")[..., 0] == torch.tensor([0, 1, 1, 1, 1, 1])).all()
    assert (layout.read(tokens, "done")[..., 1:, 0] == history().done[..., :-1]).all()
    assert (layout.read(tokens, "action")[..., 1:, :].argmax(-1) == history().action[..., :-1]).all()
    assert (layout.read(tokens, "observation").argmax(-1) == history().observation).all()


def test_a_transition_is_one_token() -> None:
    config = CONFIGS["transition, returns"]
    tokens, layout = history_tokens(config, history(), torch.full((2, 3, 6), 7.0).double()), network(config).layout
    before = layout.read(tokens, "before")
    assert (before[..., 0, :] == 0).all()
    assert (before[..., 1:, :].argmax(-1) == history().observation[..., :-1]).all()
    assert (layout.read(tokens, "action")[..., 1:, :].argmax(-1) == history().action[..., :-1]).all()
    assert (layout.read(tokens, "return") == 7.0).all()


def test_the_first_policy_is_nearly_uniform() -> None:
    config = PolicyConfig(1, 5, 30)
    past = history(30, config=config).each(lambda x: x.float() if x.is_floating_point() else x)
    laws = PolicyTransformer(config, initial_weights(config, [0, 1])).laws(past)
    assert (laws - 0.2).abs().max() < 0.1


def test_what_does_not_fit_is_refused() -> None:
    model = network(replace(SMALL, critic=False))
    with pytest.raises(ConfigError, match="a history of 7 steps; this policy sees 6 at once"):
        model(history(7))
    with pytest.raises(ConfigError, match="2 observations and 4 actions; this policy was made for 3 and 4"):
        model.start(torch.zeros(2, 3), 2, 4)
    with pytest.raises(ConfigError, match="no critic"):
        model.read_values(model(history()))
    for change, message in (
        ({"n_heads": 3}, "n_heads divides"),
        ({"d_mlp": 0}, "d_mlp is 0; allowed: a whole number of at least 1"),
        ({"reward_scale": 0.0}, "reward_scale is 0.0; allowed: a number above 0"),
        ({"positions": "rotery"}, "did you mean 'rotary'"),
    ):
        with pytest.raises(ConfigError, match=message):
            replace(SMALL, **change)
