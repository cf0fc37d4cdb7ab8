"""What streams of policies add to what is simpler, and how far swaps of it take logits: tables per seed and layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from analyses.tables import tidy
from models.networks import initial_weights
from models.policy import PolicyTransformer
from probes.increments import Increments, increments
from probes.interchange import (
    at_steps,
    interchanged_logits,
    policy_stream,
    probe_basis,
    query_logits,
    random_basis,
    way_gone,
    whole_memory,
    whole_query,
    within,
)
from probes.linear import ratio_table
from probes.policy_targets import Rows
from tasks.interaction import Interaction

N_RANDOM = 20  # subspaces: who goes farther than all of them does so by chance in one of 21
READ_OUT = "read-out"  # the positive control: after the last layer it must take logits all the way

Players = Mapping[str, tuple[PolicyTransformer, list[int]]]
"""Policies by name, and the seeds of each."""


def probed(
    policy: PolicyTransformer,
    seeds: Sequence[int],
    history: Interaction,
    times: Sequence[int],
    base: Rows,
    targets: Rows,
) -> Increments:
    """Increments with the columns of tidy tables; a layer's number is the depth, 0 the embedding."""
    untrained = PolicyTransformer(policy.config, initial_weights(policy.config, seeds))
    own, bare = (at_steps(policy_stream(each, history), times) for each in (policy, untrained))
    rows = {name: target.flatten(0, 2) for name, target in targets.items()}
    features = torch.cat([part.flatten(0, 2) for part in base.values()], -1)
    task = torch.arange(history.batch[1]).repeat_interleave(len(times))
    level = 1 - 0.05 / (policy.config.n_layers + 1)
    found = increments(own, bare, features, rows, task, confidence_level=level)
    table = found.rows.assign(seed=found.rows["position"].map(dict(enumerate(seeds)))).drop(columns="position")
    return Increments(tidied([table]), found.coef)


def swapped(
    policy: PolicyTransformer,
    seeds: Sequence[int],
    a: Interaction,
    b: Interaction,
    choices: tuple[Tensor, Tensor],
    coef: Mapping[str, Tensor],
) -> pd.DataFrame:
    """Of pairs of contexts, by layer and target (whose probe's directions are swapped at the query, READ_OUT among
    them; "everything", "memory": all of the query, or of tokens before it): way, the share of it that logits go from a
    to b; random, with random subspaces, and the farthest of them; beyond random, the paired difference; choice, how
    often the policy then chooses as in `choices` of b; unedited: in how many it chooses so in both."""
    own, other, streams = query_logits(policy, a), query_logits(policy, b), policy_stream(policy, b)
    both = torch.stack([x.argmax(-1) == choice for x, choice in zip((own, other), choices, strict=True)]).all(0)
    level = 1 - 0.05 / (policy.config.n_layers + 1)
    gap = policy.W_U.detach()[..., 1:] - policy.W_U.detach()[..., :1]
    coef = {**coef, READ_OUT: gap.expand(policy.config.n_layers + 1, -1, -1, -1)}
    tables = [shares(both.double(), seeds, "unedited").assign(target="unedited", layer=0)]
    for depth in range(1, policy.config.n_layers + 1):
        logits = partial(interchanged_logits, policy, a, streams[depth], depth)
        query = streams[depth, :, :, -1]
        bases = {name: probe_basis(weights[depth].to(own), query) for name, weights in coef.items()}
        edits = {name: within(basis) for name, basis in bases.items()}
        for name, edit in {**edits, "everything": whole_query, "memory": whole_memory}.items():
            edited = logits(edit)
            way, whole = way_gone(own, edited, other)
            found = {"way": way}
            if name in bases:
                draws = (random_basis(bases[name], query, f"{name}/{depth}", i) for i in range(N_RANDOM))
                random = way_gone(own, torch.stack([logits(within(draw)) for draw in draws]), other)[0]
                farthest = random.gather(0, random.sum(-1).argmax(0)[None, :, None].expand(1, *way.shape))[0]
                average = random.mean(0)
                found |= {"random": average, "beyond random": way - average, "farthest random": farthest}
            rows = [ways(gone, whole, seeds, metric, level) for metric, gone in found.items()]
            rows.append(shares((edited.argmax(-1) == choices[1]).double(), seeds, "choice"))
            tables.append(pd.concat(rows, ignore_index=True).assign(target=name, layer=depth))
    return pd.concat(tables, ignore_index=True)


def ways(
    gone: Float[Tensor, "seeds tasks"],
    whole: Float[Tensor, "seeds tasks"],
    seeds: Sequence[int],
    metric: str,
    level: float,
) -> pd.DataFrame:
    """Ratio of sums over tasks, per seed."""
    table = ratio_table(gone.double()[..., None], whole.double()[..., None], ["way"], metric, confidence_level=level)
    return table.drop(columns="target").rename(columns={"layer": "seed"}).assign(seed=list(seeds))


def shares(hits: Float[Tensor, "seeds tasks"], seeds: Sequence[int], metric: str) -> pd.DataFrame:
    """Means over tasks, per seed."""
    return ways(hits, torch.ones_like(hits), seeds, metric, 0.95)


def tidied(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Rows with the columns and types of all tables."""
    rows = pd.concat(tables, ignore_index=True)
    blank = tidy([], {"seed": []})
    return pd.concat([blank, rows], ignore_index=True).astype(blank.dtypes.to_dict())
