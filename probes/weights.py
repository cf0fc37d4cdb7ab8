"""Reading P and Q: which constants do the weights encode, how far is each layer from each construction, and where.

A head adds P G Q x to every token x (column form; G is the moment matrix of the context, see models.collapsed), so it
is a function of P ⊗ Q alone: (k P, Q / k) is the same network for every k != 0, the *gauge*. Conclusions rest on
invariants of it. With p = P[reward, reward], UL = Q[features, features] and UR = Q[features, next_features],

    c = -tr(UL) / d,   c' = tr(UR) / d,   alpha_eff = p c,   gamma_eff = discount c' / c

are the constants of the batch TD(0) nearest to the layer. For a construction whose P is a unit entry E (in TD++, lies
in a subspace) and whose Q lies in a set S of lines through zero, the least-squares fit to P ⊗ Q has the closed form

    distance = min |P ⊗ Q - E ⊗ S|² / |P ⊗ Q|² = 1 - (|proj_E P|² / |P|²) (|proj_S Q|² / |Q|²)

in [0, 1], and fitted constants p proj_S Q. `p_bottom_right` and the other element-wise numbers stay at the scale that
training left, as published; only their sign is fixed, by P[-1, -1] >= 0.

Distances and remainders leave out the blocks that cannot influence a prediction, see `relevance`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from models.config import LinearTransformerConfig
from models.linear import LinearTransformer, layout_of
from tasks.layout import TokenLayout

PerHead = Float[Tensor, "seeds layers heads"]
PerLayer = Float[Tensor, "seeds layers"]
PerBlock = Float[Tensor, "seeds layers heads rows columns"]

# What learners call the constants of a construction.
CONSTANTS = {"alpha": "step_size", "from_features": "from_features", "from_next": "from_next"}
ELEMENTWISE = (
    "p_bottom_right",
    "p_others",
    "q_upper_left_trace",
    "q_upper_right_trace",
    "q_others",
    "q_others_published",
)


@dataclass(frozen=True)
class ConstructionFit:
    """The member of a construction nearest to each layer: relative squared distance and the learner's constants.

    constants: `alpha`, `gamma` (the learner's discount, whatever the tokens carry), and for TD++ `from_features` and
    `from_next`; C is the matrix in place of alpha. NaN where the layer does not determine a constant.
    """

    distance: PerLayer
    constants: dict[str, PerLayer]
    C: Float[Tensor, "seeds layers d d"] | None = None


@dataclass(frozen=True)
class WeightReading:
    """What P and Q say, layer by layer (one layer where looped). NaN where a reading makes no sense for the subject.

    p_others, q_others: mean |entry| besides P[-1, -1], and besides the diagonals of UL and UR. q_others_published takes
    off the *signed* traces, as the authors' code does, which adds 2 |tr UL| / (width² - 2 d) for a TD network.
    alpha_eff, gamma_eff: of networks with one head and no memory, NaN for all others.
    constructions: the nearest member of every construction that the heads, masks and token layout of the subject admit.
    p_remainder, q_remainder: what TD(0) leaves over. The share of |P|² outside the entry E, and of |Q|² outside
    [-c I, c' I], per named block; NaN where the block is irrelevant. With sums over blocks,
    (1 - p_remainder) (1 - q_remainder) = 1 - distance to TD(0).
    """

    layout: TokenLayout
    p_bottom_right: PerHead
    p_others: PerHead
    q_upper_left_trace: PerHead
    q_upper_right_trace: PerHead
    q_others: PerHead
    q_others_published: PerHead
    alpha_eff: PerLayer
    gamma_eff: PerLayer
    p_remainder: PerBlock
    q_remainder: PerBlock
    constructions: dict[str, ConstructionFit] = field(default_factory=dict)

    def starts(self) -> dict[str, dict[str, Tensor]]:
        """The constants of the nearest constructions as learners take them: [seeds, 1, steps], discounts [seeds, 1]."""
        starts: dict[str, dict[str, Tensor]] = {}
        for name, fit in self.constructions.items():
            starts[name] = {CONSTANTS[key]: value[:, None] for key, value in fit.constants.items() if key in CONSTANTS}
            if "gamma" in fit.constants:
                starts[name]["gamma"] = fit.constants["gamma"].nanquantile(0.5, -1, keepdim=True)
            if fit.C is not None:
                starts[name]["preconditioner"] = fit.C[:, None]
        return starts

    def constants(self) -> dict[str, PerLayer]:
        """What a reader wants to see first."""
        return {"alpha_eff": self.alpha_eff, "gamma_eff": self.gamma_eff}

    def table(self) -> pd.DataFrame:
        """Tidy: seed, layer, target ("head 0", "reward,features"; empty where there is one), learner, metric, value."""
        blocks = [name for name, _ in self.layout.blocks]
        heads = [f"head {h}" for h in range(self.p_others.shape[2])] if self.p_others.shape[2] > 1 else [""]
        pairs = [f"{head} {row},{column}".strip() for head in heads for row in blocks for column in blocks]
        parts = [_tidy(getattr(self, metric), metric, heads) for metric in ELEMENTWISE]
        parts += [tidy_layers(value, metric) for metric, value in self.constants().items()]
        parts += [_tidy(getattr(self, metric), metric, pairs) for metric in ("p_remainder", "q_remainder")]
        for learner, fit in self.constructions.items():
            parts.append(tidy_layers(fit.distance, "construction_distance", learner))
            parts += [tidy_layers(value, name, learner) for name, value in fit.constants.items()]
        return pd.concat(parts, ignore_index=True)


def read_weights(model: LinearTransformer) -> WeightReading:
    """Reads every layer of every seed; see WeightReading."""
    layout, config = model.layout, model.config
    d = layout.d_features
    sign = _gauge_sign(model)[..., None, None]
    P, Q = (sign * weight.detach().cpu().double() for weight in (model.P, model.Q))
    upper_left, upper_right = (_diagonal(layout.block(Q, "features", block)) for block in ("features", "next_features"))
    tr_upper_left, tr_upper_right = upper_left.sum(-1), upper_right.sum(-1)
    q_total = Q.abs().sum((-2, -1))
    others = layout.width**2 - 2 * d

    p_relevant, q_relevant = relevance(config)
    P_live, Q_live = P * p_relevant[:, None], Q * q_relevant[:, None]
    constructions = _fit_constructions(P_live, Q_live, config)
    td = constructions.get("td0") or constructions.get("td-lambda")
    unreadable = torch.full(P.shape[:2], math.nan, dtype=P.dtype)
    target = _written_entry(config)
    td_part = torch.zeros_like(Q)
    for block, trace in (("features", tr_upper_left), ("next_features", tr_upper_right)):
        _diagonal(layout.block(td_part, "features", block))[:] = trace[..., None] / d
    return WeightReading(
        layout=layout,
        p_bottom_right=P[..., -1, -1],
        p_others=(P.abs().sum((-2, -1)) - P[..., -1, -1].abs()) / (layout.width**2 - 1),
        q_upper_left_trace=tr_upper_left,
        q_upper_right_trace=tr_upper_right,
        q_others=(q_total - upper_left.abs().sum(-1) - upper_right.abs().sum(-1)) / others,
        q_others_published=(q_total - tr_upper_left - tr_upper_right) / others,
        alpha_eff=td.constants["alpha"] if td else unreadable,
        gamma_eff=td.constants["gamma"] if td else unreadable,
        p_remainder=_block_shares(P_live * (1 - target), P_live, p_relevant, layout),
        q_remainder=_block_shares(Q_live - td_part * q_relevant[:, None], Q_live, q_relevant, layout),
        constructions=constructions,
    )


def relevance(
    config: LinearTransformerConfig,
) -> tuple[Bool[Tensor, "layers width width"], Bool[Tensor, "layers width width"]]:
    """Which entries of P and of Q can influence a prediction at all, by the architecture and the prompt alone.

    P[a, b] writes slot a from slot b of the context; Q[c, e] matches slot c of the context with slot e of the token
    that is updated. Three facts make entries idle: the last layer is read in the last slot of the query only; before
    the first layer a query has nothing but features; and before the first layer memory is zero. So all rows of P but
    the last are idle in a last layer, and with one layer so are all columns of Q but those of the features. A looped
    layer is relevant wherever one of its turns is. In a last layer of several, Q[features, next_features] is relevant,
    but acts only through what earlier layers wrote into the query's next-feature slot.
    """
    layout, n_layers = layout_of(config), config.n_layers
    last = torch.arange(n_layers)[:, None] == n_layers - 1
    in_context = torch.ones(n_layers, layout.width, dtype=torch.bool)
    if "memory" in layout:
        in_context[0, layout["memory"]] = False
    in_query = in_context.clone()
    in_query[0] = False
    in_query[0, layout["features"]] = True
    written = ~last | (torch.arange(layout.width) == layout.width - 1)
    # a softmax over query tokens lets context columns reach the output through its normaliser
    updated = in_context if config.activation == "softmax-over-queries" else torch.where(last, in_query, in_context)
    p_relevant = written[:, :, None] & in_context[:, None, :]
    q_relevant = in_context[:, :, None] & updated[:, None, :]
    if config.looped:
        return p_relevant.any(0, keepdim=True), q_relevant.any(0, keepdim=True)
    return p_relevant, q_relevant


def _fit_constructions(P: Tensor, Q: Tensor, config: LinearTransformerConfig) -> dict[str, ConstructionFit]:
    """The fits to relevant weights P, Q [seeds, layers, heads, width, width] that heads, masks and layout admit."""
    if config.activation != "linear":
        return {}
    kinds = sorted(mask.kind for mask in config.masks if mask.kind == "centred" or mask.lam == 0)
    if config.memory:
        theorem_3 = not config.discounted and len(config.masks) == 2 and kinds == ["centred", "query"]
        return {"average-reward-td": _fit_average_reward(P, Q, config)} if theorem_3 else {}
    if len(config.masks) != 1 or config.masks[0].kind != "query" or config.readout_sign != -1:
        return {}
    fits = _fit_single_head(P[:, :, 0], Q[:, :, 0], config)
    return fits if config.masks[0].lam == 0 else {"td-lambda": fits["td0"]}


def _fit_single_head(P: Tensor, Q: Tensor, config: LinearTransformerConfig) -> dict[str, ConstructionFit]:
    """TD(0) and its relatives for P, Q [seeds, layers, width, width]; see the closed form at the top."""
    layout, d, one_layer = layout_of(config), config.d_features, config.n_layers == 1
    p, total = P[..., -1, -1], _squares(P) * _squares(Q)
    names = ("features", "next_features")
    blocks = torch.stack([torch.stack([layout.block(Q, row, column) for column in names], 2) for row in names], 2)
    traces = _diagonal(blocks).sum(-1) / d  # [seeds, layers, row block, column block]
    c, c_next = -traces[..., 0, 0], traces[..., 0, 1]
    alpha = p * c

    def discount(first: Tensor, second: Tensor) -> Tensor:
        """The learner's discount from the two entries of u = (1, -discount / discount of the tokens)."""
        return (-layout.discount * second / first).where((p * first != 0) & (first.abs() < math.inf), math.nan)

    def fit(
        p_squared: Tensor, q_squared: Tensor, constants: dict[str, Tensor], C: Tensor | None = None
    ) -> ConstructionFit:
        return ConstructionFit((1 - p_squared * q_squared / total).clamp(min=0), constants, C)

    unknown = torch.full_like(p, math.nan)
    gamma = unknown if one_layer else discount(c, -c_next)
    td_squared = d * (c.square() + c_next.square())

    if one_layer:  # only the first column of Q = -alpha u u^T ⊗ I is left, and any first column has this form
        u, u_squared, residual_alpha = traces[..., 0], traces[..., 0].square().sum(-1), alpha
    else:
        u, value = _leading((traces + traces.mT) / 2)
        u_squared, residual_alpha = value.square(), -p * value * u[..., 0].square()
    residual = {"alpha": residual_alpha, "gamma": discount(u[..., 0], u[..., 1])}

    upper = blocks[:, :, 0]  # Q = u ⊗ D, u and |D|² the leading eigenpair of the Gram matrix of the two blocks
    v, D_squared = _leading(upper.flatten(-2) @ upper.flatten(-2).mT)
    D = (v[..., None, None] * upper).sum(2)
    C = -(p * v[..., 0])[..., None, None] * D.mT
    matrix_gamma = {"gamma": unknown if one_layer else discount(v[..., 0], v[..., 1])}

    from_features, from_next = (_diagonal(layout.block(P, "next_features", column)).sum(-1) / d for column in names)
    plus_squared = p.square() + d * (from_features.square() + from_next.square())
    rewrites = relevance(config)[0][:, layout["next_features"].start, 0]
    plus = {
        "alpha": alpha,
        "gamma": gamma,
        "from_features": (from_features * c / layout.discount).where(rewrites, math.nan),
        "from_next": (from_next * c).where(rewrites, math.nan),
    }
    return {
        "td0": fit(p.square(), td_squared, {"alpha": alpha, "gamma": gamma}),
        "myopic": fit(p.square(), d * c.square(), {"alpha": alpha}),
        "residual-gradient": fit(p.square(), d * u_squared, residual),
        "preconditioned-td": fit(p.square(), D_squared, matrix_gamma, C),
        "td-plus-plus": fit(plus_squared, td_squared, plus),
    }


def _fit_average_reward(P: Tensor, Q: Tensor, config: LinearTransformerConfig) -> ConstructionFit:
    """Theorem 3: both heads carry Q = alpha [-I, I]; the sign of the centring head follows the read-out's."""
    layout, target = layout_of(config), _written_entry(config)
    signs = torch.tensor([-config.readout_sign if mask.kind == "centred" else 1 for mask in config.masks]).to(P)
    unit = torch.zeros_like(Q[0, 0, 0])
    _diagonal(layout.block(unit, "features", "features"))[:] = -1.0
    _diagonal(layout.block(unit, "features", "next_features"))[:] = 1.0
    p_relevant, q_relevant = relevance(config)
    inner = (signs * (P * target).sum((-2, -1)) * (Q * unit).sum((-2, -1))).sum(-1)
    norm = (_squares(target * p_relevant[:, None]) * _squares(unit * q_relevant)[:, None]).sum(-1)
    total = (_squares(P) * _squares(Q)).sum(-1)
    return ConstructionFit((1 - inner.square() / norm / total).clamp(min=0), {"alpha": inner / norm})


def _written_entry(config: LinearTransformerConfig) -> Tensor:
    """The unit matrices E [heads, width, width]: the one entry of P that a construction of TD uses.

    It copies the last slot onto itself, and in the head of Theorem 3 that centres rewards, the reward into memory.
    """
    layout = layout_of(config)
    target = torch.zeros(len(config.masks), layout.width, layout.width, dtype=torch.float64)
    for head, mask in enumerate(config.masks):
        target[head, -1, layout["reward"] if mask.kind == "centred" else slice(-1, None)] = 1.0
    return target


def _leading(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Unit eigenvector [..., 2] and eigenvalue of largest modulus of symmetric [..., 2, 2]; NaN where there is NaN."""
    a, b, c = matrix[..., 0, 0], matrix[..., 0, 1], matrix[..., 1, 1]
    centre, radius = (a + c) / 2, torch.hypot((a - c) / 2, b)
    angle = torch.atan2(b, (a - c) / 2) / 2 + (centre < 0).to(matrix) * (math.pi / 2)
    return torch.stack([angle.cos(), angle.sin()], -1), centre + torch.where(centre < 0, -radius, radius)


def _gauge_sign(model: LinearTransformer) -> PerHead:
    """The sign that makes P[-1, -1] positive or, where it is zero, tr UL negative.

    It is 1 for ReLU and softmax: they are not odd, so there (-P, -Q) is another function.
    """
    P, Q = model.P.detach().cpu(), model.Q.detach().cpu()
    if model.config.activation != "linear":
        return torch.ones_like(P[..., 0, 0])
    trace = _diagonal(model.layout.block(Q, "features", "features")).sum(-1)
    sign = torch.where(P[..., -1, -1] != 0, P[..., -1, -1], -trace).sign()
    return torch.where(sign == 0, 1.0, sign)


def _block_shares(remainder: Tensor, whole: Tensor, relevant: Tensor, layout: TokenLayout) -> PerBlock:
    """|block of remainder|² / |whole|² for every pair of named blocks; NaN where irrelevant."""
    member = torch.zeros(layout.width, len(layout.blocks), dtype=whole.dtype)
    for column, place in enumerate(layout.slices.values()):
        member[place, column] = 1.0
    shares = member.mT @ remainder.square() @ member / _squares(whole)[..., None, None]
    return shares.where((member.mT @ relevant.to(whole) @ member)[:, None] > 0, math.nan)


def _diagonal(matrix: Tensor) -> Tensor:
    return matrix.diagonal(dim1=-2, dim2=-1)


def _squares(matrix: Tensor) -> Tensor:
    return matrix.square().sum((-2, -1))


def tidy_layers(values: PerLayer, metric: str, learner: str = "") -> pd.DataFrame:
    """Rows seed x layer."""
    return _tidy(values, metric, [""], learner)


def _tidy(values: Tensor, metric: str, targets: list[str], learner: str = "") -> pd.DataFrame:
    """Rows seed x layer x target from a tensor [seeds, layers, ...]."""
    seeds, layers = values.shape[:2]
    index = pd.MultiIndex.from_product([range(seeds), range(layers), targets], names=["seed", "layer", "target"])
    frame = index.to_frame(index=False)
    return frame.assign(learner=learner, metric=metric, value=values.reshape(-1).double().numpy())
