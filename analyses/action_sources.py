"""The learners that distillations imitate, on the walks that the networks are tested on: how well they act, and how far
a network is from them.

A network of linear attention without positions sees a walk through its moments, which carry no order; both sources
update step by step, so their laws depend on the order and cannot be matched exactly. How far off every such network
stays: two stretches of a walk between three visits of one pair may change places. Tokens, and so moments, are the same
as before, and a uniformly random walk takes either course equally often. Whatever is said of both is from the source's
laws, on average over the two, at least their Jensen-Shannon divergence away.
"""

from __future__ import annotations

import math

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from algorithms.acting import ActingLearner, laws_everywhere, remember
from analyses.action_subjects import HeldOut, Subjects, held_out, held_out_walk, preferences
from analyses.tables import tidy
from models.linear import LinearTransformer
from models.train_actions import BETA
from tasks.action_values import pairs
from tasks.interaction import Interaction

Laws = Float[Tensor, "*batch states actions"]


def source_laws(source: ActingLearner, walk: Interaction) -> Laws:
    """The source's laws in every state after the walk."""
    return laws_everywhere(source, remember(source, walk), walk.batch, walk.n_observations)


def source_reference(subjects: Subjects) -> pd.DataFrame:
    """Accuracy of the source on the test walks; in nats the floor under the KL of whoever reads moments alone, and the
    KL of a uniform law."""
    source, walk = subjects.source, held_out_walk(subjects)
    assert source is not None
    test, own = held_out(subjects), source_laws(source, walk)
    other = source_laws(source, reordered(walk))
    numbers = {
        "accuracy": test.accuracy(own.double()),
        "KL floor": jensen_shannon(own, other).mean((-2, -1)),
        "KL uniform": math.log(own.shape[-1]) - torch.special.entr(own).sum(-1).mean((-2, -1)),
    }
    tables = [tidy(value, {"seed": [0]}, metric=metric) for metric, value in numbers.items()]
    return pd.concat(tables, ignore_index=True).assign(subject="reference", learner=f"source of {subjects.objective}")


def distance_to_source(
    subjects: Subjects, model: LinearTransformer, test: HeldOut
) -> dict[str, Float[Tensor, " seeds"]]:
    """KL from the source's law to the network's, nats per state, and the correlation of their log-odds of actions."""
    source = subjects.source
    if source is None:
        return {}
    law = source_laws(source, held_out_walk(subjects)).to(test.context)
    said = (BETA * preferences(model, test)).log_softmax(-1)
    log_law = law.clamp(min=torch.finfo(law.dtype).tiny).log()
    odds = [(x - x.mean(-1, keepdim=True)).flatten(1) for x in (said, log_law)]
    return {
        "KL from source": (law * (log_law - said)).sum(-1).mean((-2, -1)),
        "correlation, source": torch.cosine_similarity(*odds, dim=-1),
    }


def reordered(walk: Interaction) -> Interaction:
    """The walk with two stretches exchanged, between its first, a middle and the last visit of one pair.

    Of the pairs the one visited most; a walk that visits none three times stays as it is.
    """
    visited = pairs(walk)
    counts = torch.nn.functional.one_hot(visited).sum(-2)
    here = visited == counts.argmax(-1, keepdim=True)
    nth = here.cumsum(-1)
    time = torch.arange(walk.n_steps).expand_as(visited)

    def visit(n: Tensor) -> Tensor:
        return torch.where(here & (nth == n), time, 0).amax(-1, keepdim=True)

    total = nth[..., -1:]
    first, middle, last = visit(torch.ones_like(total)), visit((total + 1) // 2), visit(total)
    later = torch.where((time >= first) & (time < middle), last - middle, 0)
    earlier = torch.where((time >= middle) & (time < last), middle - first, 0)
    order = (time + later - earlier).argsort(-1)
    return walk.each(lambda x: x.gather(-1, order))


def jensen_shannon(first: Laws, second: Laws) -> Float[Tensor, "*batch states"]:
    """The mean KL of two laws from their mean, nats."""
    middle = (first + second) / 2
    parts = (torch.special.entr(middle) - (torch.special.entr(first) + torch.special.entr(second)) / 2).sum(-1)
    return parts.clamp(min=0)
