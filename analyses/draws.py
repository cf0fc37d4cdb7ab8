"""Networks drawn at random whose algorithm is known: constants, weights, and variants of the weights.

Every draw is a function of a member's number and a purpose; members of one ensemble differ in weights alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from models import constructions
from models.linear import LinearTransformer
from probes.weights import relevance
from tasks.streams import normals, uniforms

Constants = dict[str, Tensor]
D_FEATURES = 4
GAMMA = 0.9  # of the tasks, and what discounted tokens carry
IDENTITY = torch.eye(D_FEATURES, dtype=torch.float64)
SPECTRUM = torch.tensor([0.4, 0.8, 1.2, 1.6], dtype=torch.float64)  # of C / alpha: no multiple of the identity
# The largest step size at which most Boyan chains converge; draws go from a fifth of it upwards.
LARGEST_STEP = {
    "td0": 2.0,
    "td-lambda": 1.0,
    "residual-gradient": 1.0,
    "average-reward-td": 1.0,
    "preconditioned-td": 1.2,
    "td-plus-plus": 1.0,
    "myopic": 2.0,
    "reward-average": 2.0,
}
WITHOUT_DISCOUNT = ("myopic", "reward-average", "average-reward-td")
PERTURBATIONS = {"perturbed 1 %": 0.01, "perturbed 3 %": 0.03, "perturbed 10 %": 0.1}
EXACT = ("exact", "gauge", "filled")  # they leave the function alone
VARIANTS = (*EXACT, *PERTURBATIONS)


def draw_constants(name: str, n_layers: int, looped: bool, members: Sequence[int], purpose: str) -> Constants:
    """Constants [members, 1, ...] of a learner, every member's from its own stream.

    Effective discounts lie in .5 to .95. Members share lambda, since a mask belongs to a whole ensemble.
    """
    steps = 1 if looped or name == "reward-average" else n_layers

    def between(low: float, high: float, part: str, *shape: int) -> Tensor:
        return low + (high - low) * uniforms(members, f"{purpose}/{part}", 0, 1, *shape).double()

    if name in ("lstd", "monte-carlo"):
        return {"ridge": between(0.01, 0.3, "ridge"), "gamma": between(0.5, 0.95, "gamma")}
    largest = LARGEST_STEP[name]
    drawn = {"step_size": between(0.2 * largest, largest, "step size", steps)}
    if name not in WITHOUT_DISCOUNT:
        drawn["gamma"] = between(0.5, 0.95, "gamma")
    if name == "td-lambda":
        drawn["lam"] = 0.2 + 0.6 * uniforms([0], f"{purpose}/lambda", 0, 1).double().expand(len(members), 1)
    if name == "td-plus-plus":
        drawn["from_features"] = -between(0.1, 0.3, "from features", steps)
        drawn["from_next"] = between(0.1, 0.3, "from next", steps)
    if name == "preconditioned-td":
        shape = (1, steps, D_FEATURES, D_FEATURES)
        rotation, _ = torch.linalg.qr(normals(members, f"{purpose}/rotation", 0, *shape).double())
        drawn["preconditioner"] = drawn.pop("step_size")[..., None, None] * (rotation * SPECTRUM) @ rotation.mT
    return drawn


def construct(name: str, drawn: Constants, n_layers: int) -> LinearTransformer:
    """The network that runs the learner with these constants, looped where the steps share them."""
    C = drawn["preconditioner"] if "preconditioner" in drawn else drawn["step_size"][..., None, None] * IDENTITY
    match name:
        case "td-lambda":
            model = constructions.td_lambda(C[:, 0], n_layers=n_layers, lam=float(drawn["lam"][0, 0]))
        case "residual-gradient":
            model = constructions.residual_gradient(C[:, 0], n_layers=n_layers)
        case "average-reward-td":
            model = constructions.average_reward_td(C[:, 0], n_layers=n_layers)
        case "myopic":
            model = constructions.myopic(C[:, 0], n_layers=n_layers)
        case _:  # what TD(0)'s weights become with a matrix C, a single layer, or rows of P below
            model = constructions.td0(C[:, 0], n_layers=n_layers)
    with torch.no_grad():
        if name == "td-plus-plus":
            _write_next_features(model, drawn)
        if "gamma" in drawn:
            model.Q.copy_(_rediscounted(model, drawn["gamma"]))
    return model


def _rediscounted(model: LinearTransformer, gamma: Tensor) -> Tensor:
    """Q <- D Q D: whatever reads the next features now reads them with the discount gamma [members, 1]."""
    scale = torch.ones(len(gamma), 1, 1, model.layout.width, dtype=torch.float64)
    scale[..., model.layout["next_features"]] = gamma[:, :, None, None] / model.layout.discount
    return scale[..., None] * model.Q * scale[..., None, :]


def _write_next_features(model: LinearTransformer, drawn: Constants) -> None:
    """The rows of P that make TD(0) into TD++, from its constants as `probes.weights` reads them back."""
    from_features = model.layout.discount * drawn["from_features"] / drawn["step_size"]
    from_next = drawn["from_next"] / drawn["step_size"]
    for column, entry in (("features", from_features), ("next_features", from_next)):
        block = model.layout.block(model.P[:, :, 0], "next_features", column)
        block.diagonal(dim1=-2, dim2=-1)[:] = entry[:, 0, :, None]


def varied(
    model: LinearTransformer, variants: Sequence[str], members: Sequence[int], purpose: str
) -> LinearTransformer:
    """Every member in the variant named for it.

    gauge: each P times a factor of its own, of either sign and magnitude .1 to 10, its Q divided by it. filled: noise
    in the irrelevant entries, as large as those in use. perturbed: Gaussian noise on all relevant entries, its
    root mean squared norm that share of the matrix's own. Each P and each Q counts by itself, so no gauge matters.
    """
    weights = {"P": model.P.detach(), "Q": model.Q.detach()}
    at = torch.tensor([VARIANTS.index(variant) for variant in variants])[:, None, None, None, None]
    level = torch.tensor([PERTURBATIONS.get(variant, 0.0) for variant in variants], dtype=torch.float64)
    gauge = _gauge(members, purpose, *weights["P"].shape[1:3])
    changed = {}
    for (name, w), relevant in zip(weights.items(), relevance(model.config), strict=True):
        noise = normals(members, f"{purpose}/noise in {name}", 0, *w.shape[1:]).double()
        live = relevant[:, None].to(w)  # [layers, 1, width, width]
        norm = w.square().sum((-2, -1), keepdim=True).sqrt()
        size = norm / w.count_nonzero((-2, -1))[..., None, None].sqrt()  # of the entries in use
        spread = norm / live.sum((-2, -1), keepdim=True).sqrt()
        w = torch.where(at == VARIANTS.index("filled"), torch.where(relevant[:, None], w, size * noise), w)
        w = w + level[:, None, None, None, None] * spread * live * noise
        factor = gauge if name == "P" else 1 / gauge
        changed[name] = torch.where(at == VARIANTS.index("gauge"), w * factor, w)
    return LinearTransformer(model.config, changed["P"], changed["Q"])


def _gauge(members: Sequence[int], purpose: str, *shape: int) -> Tensor:
    sign, magnitude = (uniforms(members, f"{purpose}/{part}", 0, *shape, 1, 1).double() for part in ("sign", "gauge"))
    return torch.where(sign < 0.5, -1, 1) * 10 ** (2 * magnitude - 1)
