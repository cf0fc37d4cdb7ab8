"""Attention that only its positions train: which zero-loss weights are found, and what data cannot see of them.

With d = 1 and one trivial head a prediction is sum_t P[T, t] s_t conj(s_{T-1}) s_t (arXiv 2402.05787). Where the phases
of W are close to one another the least-squares problem for P is near-singular: many P compute the same function.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from analyses.tables import tidy
from models.causal_constructions import positional_encoding
from models.positional import descend, lag_gram, null_projector
from tasks.autoregressive import AutoregressiveFamily
from tasks.streams import normals

# Weight on the state s_{T-1} at T = 30 by phase scale, and the rank of the 29 x 29 Gram (eigenvalues above RANK_ABOVE),
# from the authors' arrays and settings. Their arrays lack the weight on s_T itself.
PUBLISHED_WEIGHT = {50.0: 0.334, 100.0: 0.242, 200.0: 0.183, 300.0: 0.132}
PUBLISHED_RANK = {1.0: 29, 50.0: 6, 100.0: 4, 200.0: 3, 300.0: 3}
RANK_ABOVE = 1e-3
POSITIONS, SAMPLES = 30, 1000
POSITIONAL_TRAINING = {"learning_rate": 0.5, "target_loss": 1e-3, "max_steps": 100_000}


@torch.no_grad()
def positional_rows(analysis: str, scale: float, n_seeds: int) -> pd.DataFrame:
    """Phases U(0, 2 pi) / scale: P at T = POSITIONS by lag, the rank of the Gram, and how far predictions move when P
    moves by as much as it is long, along a random null direction or along any random one."""
    seeds, family = range(n_seeds), AutoregressiveFamily(1, phase_scale=scale, augmented=False)
    phases = family.operators(seeds, "train", 0, SAMPLES)[..., 0, 0].angle()
    gram = lag_gram(phases, POSITIONS)
    fit = descend(gram, **POSITIONAL_TRAINING)
    rank = (torch.linalg.eigvalsh(lag_gram(phases, POSITIONS - 1)) > RANK_ABOVE).sum(-1)
    weights = fit.P[:, -1].flip(-1)  # by lag: s_T comes first
    labels = {"analysis": analysis, "subject": f"positions, scale {scale:g}"}
    published = np.full(POSITIONS, np.nan)
    published[1] = PUBLISHED_WEIGHT.get(scale, np.nan)
    by_lag = tidy(weights, {"seed": seeds, "lag": range(POSITIONS)}, metric="weight", **labels)
    tables = [by_lag.assign(published=np.tile(published, n_seeds))]
    for metric, numbers in (("rank", rank), ("steps", fit.steps), ("loss", fit.loss)):
        known = PUBLISHED_RANK.get(scale, np.nan) if metric == "rank" else np.nan
        tables.append(tidy(numbers, {"seed": seeds}, metric=metric, **labels).assign(published=known))
    for metric, moved in _moved(fit.P, gram, family).items():
        tables.append(tidy(moved, {"seed": seeds}, metric=metric, **labels))
    return pd.concat(tables, ignore_index=True).assign(phase_scale=scale)


def _moved(P: Tensor, gram: Tensor, family: AutoregressiveFamily) -> dict[str, Float[Tensor, " seeds"]]:
    """E |f' - f|^2 / E |f|^2 of the last prediction when the last row of P moves by its own length. NaN without a null
    direction."""
    n_seeds, n = P.shape[:2]
    prompt = family.fresh_prompt([0], "test", 0, SAMPLES, n, family.layout)
    draws = normals(range(n_seeds), "positional/direction", 0, n).double()
    null = (null_projector(gram, RANK_ABOVE) @ draws[..., None])[..., 0]
    before = positional_encoding(P).predict(prompt)[:, :, -1]
    found = {}
    for name, direction in (("moved_null", null), ("moved_any", draws)):
        length = direction.norm(dim=-1, keepdim=True)
        step = (direction / length.where(length > 0, torch.nan) * P[:, -1].norm(dim=-1, keepdim=True)).flip(-1)
        edited = P.clone()
        edited[:, -1] += step
        after = positional_encoding(edited).predict(prompt)[:, :, -1]
        found[name] = (after - before).abs().square().mean((1, 2)) / before.abs().square().mean((1, 2))
    return found
