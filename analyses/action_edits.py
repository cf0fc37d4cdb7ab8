"""What a network that reads walks can do without: turns, blocks of P and Q, and what its context tokens write down.

Linear attention updates context tokens and queries alike. TD(0) keeps one thing in its context: every token's reward
slot becomes its TD error, and features stay as they are. So P may be kept from writing there, in context tokens alone:

    rewards held            the reward slots stay rewards: no TD error is ever made
    features held           phi and phi' stay as they are: no transition is composed with another
    rewards out of features whatever becomes of phi and phi', no reward is written into them

TD(0) loses everything under the first and nothing under the others; planted TD++, which rewrites phi' too, chooses
worse than chance under the first and better than before under the second.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from analyses.action_subjects import HeldOut, preferences
from analyses.tables import tidy
from models.linear import LinearTransformer
from probes.interventions import block_lesions, without_bootstrap_block
from probes.successors import slot_contrasts, squared_cosines, successor_contrasts

LOOPS = (1, 2, 4)
FEATURES, SLOTS = ("features", "next_features"), ("features", "next_features", "reward")
HELD = {
    "accuracy, rewards held": [("reward", read) for read in SLOTS],
    "accuracy, features held": [(written, read) for written in FEATURES for read in SLOTS],
    "accuracy, rewards out of features": [(written, "reward") for written in FEATURES],
}


def accuracies(model: LinearTransformer, test: HeldOut) -> dict[str, Float[Tensor, " seeds"]]:
    """As trained, with further loops, without the bootstrap block, and with what HELD names held in the context."""
    deeper = {f"accuracy, {k} x loops": model.deeper(k) for k in LOOPS[1:]}
    networks = {"accuracy": model, **deeper, "accuracy, lesion": without_bootstrap_block(model)}
    said = {name: preferences(network, test) for name, network in networks.items()}
    said |= {name: held(model, test, blocks) for name, blocks in HELD.items()}
    return {name: test.accuracy(values) for name, values in said.items()}


def held(
    model: LinearTransformer, test: HeldOut, blocks: Sequence[tuple[str, str]]
) -> Float[Tensor, "seeds tasks states actions"]:
    """What a looped network of one head says where P does not write these blocks (written, read) in context tokens.

    Queries are updated by all of P, from a context that goes its own way.
    """
    P, Q = (weight.detach()[:, :, 0] for weight in (model.P, model.Q))
    in_context = P.clone()
    for written, read in blocks:
        model.layout.block(in_context, written, read).zero_()
    G = test.context.mT @ test.context / test.context.shape[-2]
    identity = torch.eye(model.layout.width, dtype=P.dtype)
    to_queries = identity
    for _ in range(model.config.n_layers):
        to_queries = to_queries + P @ G @ Q @ to_queries
        step = identity + in_context @ G @ Q
        G = step @ G @ step.mT
    said = model.config.readout_sign * to_queries[..., -1, model.layout["features"]]
    return said.unflatten(-1, (test.tasks.n_states, test.tasks.n_actions))


def inside(model: LinearTransformer, test: HeldOut, name: str, seeds: list[int]) -> dict[str, pd.DataFrame]:
    """lesions: accuracy without each named block of P and Q, and with its entries in random order. successors: by
    layer, how far what queries hold of the next states is the distribution k steps on (column steps), as squared
    cosines of what the action changes."""
    rows = []
    for metric, permuted in (("accuracy", False), ("accuracy, permuted", True)):
        for block, network in block_lesions(model, permuted=permuted).items():
            value = test.accuracy(preferences(network, test))
            rows.append(tidy(value, {"seed": seeds}, subject=name, target=block, metric=metric))
    n_layers = model.config.n_layers
    written = slot_contrasts(model, test.context, test.tasks.n_actions)
    carried = squared_cosines(written, successor_contrasts(test.tasks, n_layers))
    axes = {"layer": range(n_layers + 1), "steps": range(1, n_layers + 1), "seed": seeds}
    successors = tidy(carried, axes, subject=name, metric="squared cosine")
    return {"lesions": pd.concat(rows, ignore_index=True), "successors": successors}
