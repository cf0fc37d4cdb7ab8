"""Networks of labelled tokens drawn at random whose algorithm is known: constants, and the weights that have them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from analyses.draws import Constants
from models import regression_constructions
from models.linear import LinearTransformer
from tasks.streams import normals, uniforms

D_FEATURES = 5
IDENTITY = torch.eye(D_FEATURES, dtype=torch.float64)
SPECTRUM = torch.tensor([0.4, 0.7, 1.0, 1.3, 1.6], dtype=torch.float64)  # of C / alpha: no multiple of the identity
# The largest step size at which gradient descent converges on most prompts of 20 examples; draws go from a fifth of it.
LARGEST_STEP = 0.9
# By constant of the learners that no construction runs: all stay well apart from OLS, and from the plain mean.
RANGES = {"ridge": (0.05, 1.0), "scale": (0.3, 1.8), "inverse_temperature": (0.1, 1.0)}
FREE = {"ridge": ("ridge",), "newton": ("scale",), "kernel-smoother": ("inverse_temperature",)}
STEPPING = ("averaging", "gd", "preconditioned-gd", "gd-plus-plus")


def draw_constants(name: str, n_layers: int, looped: bool, members: Sequence[int], purpose: str) -> Constants:
    """Constants [members, 1, ...] of a learner, every member's from its own stream; none for those that have none.

    The preconditioner of GD++ is anything between the identity and a random one. Its largest move of the covariates,
    a b S A, is about one.
    """
    steps = 1 if looped or name == "averaging" else n_layers

    def between(low: float, high: float, part: str, *shape: int) -> torch.Tensor:
        return low + (high - low) * uniforms(members, f"{purpose}/{part}", 0, 1, *shape).double()

    if name not in STEPPING:
        return {key: between(*RANGES[key], key) for key in FREE.get(name, ())}
    step_size = between(0.2 * LARGEST_STEP, LARGEST_STEP, "step size", steps)
    if name in ("averaging", "gd"):
        return {"step_size": step_size}
    rotation, _ = torch.linalg.qr(normals(members, f"{purpose}/rotation", 0, 1, steps, *IDENTITY.shape).double())
    random = (rotation * SPECTRUM) @ rotation.mT
    if name == "preconditioned-gd":
        return {"preconditioner": step_size[..., None, None] / SPECTRUM.max() * random}
    share = between(0.0, 1.0, "share of the random preconditioner")[..., None, None]
    rewrite = between(0.15, 0.5, "rewrite", steps)
    matrix = (1 - share[..., None]) * IDENTITY + share[..., None] * random
    return {"preconditioner": step_size[..., None, None] * matrix, "rewrite": rewrite}


def construct(name: str, drawn: Constants, n_layers: int) -> LinearTransformer:
    """The network that runs the learner with these constants, looped where the steps share them."""
    if "preconditioner" in drawn:
        C = drawn["preconditioner"][:, 0]
    else:
        C = drawn["step_size"][:, 0, :, None, None] * IDENTITY
    if name == "gd-plus-plus":
        B = regression_constructions.scaled_identity(drawn["rewrite"][:, 0], D_FEATURES)
        return regression_constructions.gd_plus_plus(C, B, n_layers=n_layers)
    return regression_constructions.gradient_descent(C, n_layers=n_layers)
