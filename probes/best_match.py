"""Which iterate of an algorithm is each layer most like? The best-match curves of arXiv 2310.17086, section 4.

With residuals r = f(x_q) - y_q over a prompt's queries, and induced weights w,

    SimE = E cos(r_layer, r_iterate),   SimW = E cos(w_layer, w_iterate)

and the best match of a layer is the iterate with the largest similarity. Cosines say nothing of size: read them
together with the number of iterations after which the error is as small, and with how far the two are apart.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from tasks.layout import Prompt

# Of the answers' mean square: what is left of an error below it is rounding, and like nothing.
ROUNDING = 1e-24

Layers = Float[Tensor, "layers seeds tasks queries 1"]
Iterates = Float[Tensor, "steps seeds tasks queries 1"]
Similarity = Float[Tensor, "seeds layers steps"]


def similarity_of_errors(layers: Layers, iterates: Iterates, prompt: Prompt) -> Similarity:
    """SimE of every layer with every iterate, over the tasks on which both err by more than rounding; else NaN."""
    residuals = [(f - prompt.answers)[..., 0] for f in (layers, iterates)]
    power = prompt.answers[..., 0].square().sum(-1)
    mine, theirs = (r.square().sum(-1) > ROUNDING * power for r in residuals)
    return _mean_cosine(*residuals, mine, theirs)


def similarity_of_weights(
    layers: Float[Tensor, "layers seeds tasks d"], iterates: Float[Tensor, "steps seeds tasks d"]
) -> Similarity:
    """SimW of every layer with every iterate, over the tasks on which neither has zero weights; else NaN."""
    return _mean_cosine(layers, iterates, *(w.square().sum(-1) > 0 for w in (layers, iterates)))


def _mean_cosine(first: Tensor, second: Tensor, *counted: Tensor) -> Similarity:
    tiny = torch.finfo(first.dtype).tiny
    units = (
        torch.where(count[..., None], normalize(x, dim=-1, eps=tiny), 0.0)
        for x, count in zip((first, second), counted, strict=True)
    )
    number = torch.einsum("lst, kst -> slk", *(count.to(first) for count in counted))
    return torch.einsum("lstq, kstq -> slk", *units) / number


def relative_error(predictions: Iterates, prompt: Prompt) -> Float[Tensor, "steps seeds"]:
    """Median over tasks of E (f - y)^2 / E y^2, queries alike."""
    error = (predictions - prompt.answers).square().mean((-2, -1))
    return (error / prompt.answers.square().mean((-2, -1))).quantile(0.5, -1)


def best_match(similarity: Similarity) -> Float[Tensor, "seeds layers"]:
    """The iterate most like each layer, the earliest of equals; NaN where a layer is like none."""
    known = ~similarity.isnan()
    best = similarity.where(known, -torch.inf).argmax(-1).to(similarity)
    return best.where(known.any(-1), torch.nan)


def matched_iterations(
    layers: Float[Tensor, "layers seeds"], iterates: Float[Tensor, "steps seeds"]
) -> Float[np.ndarray, "seeds layers"]:
    """After how many iterations the error is a layer's, from the errors of both; the logarithm is interpolated.

    NaN where the iterations run never has it, and beyond the first one that increases the error.
    """
    found = []
    for mine, theirs in zip(layers.mT.log().numpy(), iterates.mT.log().numpy(), strict=True):
        falls = int(np.append(np.diff(theirs) < 0, False).argmin()) + 1  # the length of the part that decreases
        steps = np.arange(falls, dtype=float)[::-1]
        found.append(np.interp(mine, theirs[:falls][::-1], steps, left=np.nan, right=np.nan))
    return np.array(found)


def unexplained(layers: Layers, iterates: Iterates, prompt: Prompt) -> Similarity:
    """Median over tasks of E (f - g)^2 / E (f - y)^2, of every layer f and iterate g: what g misses of f's own error.

    Zero for the same function, and one for an iterate without error.
    """
    error = (layers - prompt.answers).square().mean((-2, -1))  # [layers, seeds, tasks]
    found = []
    for iterate in iterates:
        difference = (layers - iterate).square().mean((-2, -1))
        found.append((difference / error).quantile(0.5, -1))
    return torch.stack(found, -1).transpose(0, 1)
