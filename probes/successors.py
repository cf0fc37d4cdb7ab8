"""Does a network carry where actions lead? What its layers write of the next states, against the true distributions.

Linear attention multiplies every token by one matrix per layer (`models.collapsed`), so what a query (s, a) holds in
its next-feature slot before layer l is a column of that matrix. A network that composes transitions holds in it, up to
a scale, the distribution of the state k steps on; TD(0) leaves it empty. Where only the choice matters, what counts is
the difference that the action makes.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from models.collapsed import layer_maps
from models.linear import LinearTransformer
from tasks.decision import DecisionTasks


def slot_contrasts(
    model: LinearTransformer, context: Float[Tensor, "#seeds tasks n width"], n_actions: int
) -> Float[Tensor, "layers seeds tasks states contrasts"]:
    """What the next-feature slot of a query says of every state, summed over actions: of (s, a) minus (s, 0), a > 0.

    Layer 0 is the input, which is zero there.
    """
    G = (context.mT @ context / context.shape[-2])[:, :, None]
    with torch.no_grad():
        maps = torch.stack(torch.broadcast_tensors(*layer_maps(model.P, model.Q, G, model.config.n_layers)))
    layout = model.layout
    written = maps[..., layout["next_features"], layout["features"]]
    by_state = written.unflatten(-2, (-1, n_actions)).sum(-2).unflatten(-1, (-1, n_actions))
    return (by_state[..., 1:] - by_state[..., :1]).flatten(-2)


def successor_contrasts(tasks: DecisionTasks, n_steps: int) -> Float[Tensor, "steps *batch states contrasts"]:
    """P(s_k = s' | s, a) - P(s_k = s' | s, 0), k = 1 ... n_steps, actions uniformly random after the first."""
    n = tasks.n_states
    kernel = torch.zeros(*tasks.mean_rewards.shape, n, dtype=tasks.start.dtype)
    kernel = kernel.scatter_add(-1, tasks.successors, tasks.probabilities)  # [*batch, states, actions, next]
    walk, found = kernel.mean(-2), [kernel]
    for _ in range(n_steps - 1):
        found.append(found[-1] @ walk[..., None, :, :])
    steps = torch.stack(found)
    return (steps[..., 1:, :] - steps[..., :1, :]).flatten(-3, -2).mT


def squared_cosines(
    written: Float[Tensor, "layers seeds tasks states contrasts"],
    truth: Float[Tensor, "steps #seeds tasks states contrasts"],
) -> Float[Tensor, "layers steps seeds"]:
    """Over tasks, states and contrasts; zero where nothing is written."""
    a = written[:, None].flatten(-3)
    b = truth[None].flatten(-3)
    product = (a * b).sum(-1).square()
    return product / (a.square().sum(-1) * b.square().sum(-1)).clamp(min=torch.finfo(a.dtype).tiny)
