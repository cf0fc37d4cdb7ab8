"""Which intervention tells which learners apart, and do constructions move as their own learner predicts?

*Separation* is computed from the learners alone, before any network is seen: rival b is fitted to what a predicts, and
a test separates them by the share of a's change that b's prediction leaves unexplained. Where b contains a, or is the
same function, it can leave nothing, and only the other direction counts.

*Slopes*: constructions with random constants, each in a gauge of its own, and random networks as controls; all rivals
are fitted to their unedited predictions on other tasks and then predict every intervention.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf

import numpy as np
import pandas as pd
import torch

from algorithms.bank import RIVALS, build
from algorithms.fit import fit_bank
from algorithms.learner import Learner
from analyses.configs import CausalTests
from analyses.draws import D_FEATURES, GAMMA, SPECTRUM, construct, draw_constants, varied
from analyses.tables import select, tidy
from models.config import LinearTransformerConfig
from models.linear import LinearTransformer
from probes.behaviour import predict, task_interval
from probes.causal import CausalFinding, causal_table, run_tests
from probes.causal_prompts import ages, hops, response_by, response_kernel, response_to_reward, stitching_prompt
from probes.discrimination import distinct_pairs
from probes.interventions import (
    CausalTest,
    bootstrap_lesion,
    discount_counterfactual,
    erasure,
    more_depth,
    random_erasure,
    response,
    standard_tests,
    stitching,
    td_error_swap,
)
from tasks.layout import Prompt, TokenLayout, transition_layout
from tasks.markov_reward import TaskFamily
from tasks.streams import normals

ANALYSIS = "causal-tests"
LAYOUT = transition_layout(D_FEATURES, discount=GAMMA)
# A pair is separated by a test that leaves more than this: five times what a rival that fits may leave (verdict.FITS).
SEPARATED = 0.1
PLANTED = ("td0", "residual-gradient", "td-lambda", "td-plus-plus", "preconditioned-td", "average-reward-td", "myopic")
ALONE = ("td-lambda", "average-reward-td")  # a mask or a token of their own; the others fit in one ensemble
RANDOM = "random"
RANDOM_SCALE = 0.3  # of the entries of a random network
METRICS = ("slope", "unexplained")
FARTHEST = 8  # transitions, in the response by graph distance


def reference(n_layers: int, step_size: float) -> dict[str, Learner]:
    """Every rival but the zero predictor, with constants that are stable on Boyan chains at the step size of TD(0).

    Residual gradient takes half of it, since its second moment is about twice as large.
    """
    gamma = {"gamma": GAMMA}
    td = {"step_size": step_size, **gamma}
    mixed, _ = torch.linalg.qr(normals([0], "causal/rotation", 0, D_FEATURES, D_FEATURES)[0].double())
    given = {
        "reward-average": {"step_size": step_size},
        "myopic": {"step_size": step_size},
        "td0": td,
        "residual-gradient": {**td, "step_size": step_size / 2},
        "td-lambda": {**td, "lam": 0.5},
        "td-plus-plus": {**td, "from_features": -0.5, "from_next": 0.25},
        "preconditioned-td": {
            "preconditioner": (step_size * mixed * SPECTRUM @ mixed.T)[None, None, None],
            "gamma": GAMMA,
        },
        "average-reward-td": {"step_size": step_size},
        "lstd": {"ridge": 0.01, **gamma},
        "monte-carlo": {"ridge": 0.01, **gamma},
    }
    return {name: build(name, n_layers, given[name]) for name in RIVALS if name in given}


def run(config: CausalTests) -> dict[str, pd.DataFrame]:
    """Tables separation (test, depth, pair), slopes (construction, test, rival), profiles (responses by distance)."""
    return {
        "separation": pd.concat([separation(config, depth) for depth in config.depths], ignore_index=True),
        "slopes": slopes(config),
        "profiles": profiles(config),
    }


def separation(config: CausalTests, depth: int) -> pd.DataFrame:
    """Rows learner a, target b: `unexplained` for ordered pairs; `separation`, the smaller that counts, once per pair;
    and the `threshold`. Infinite where b predicts a change and a none, NaN where either predicts nothing."""
    learners = reference(depth, config.step_size)
    middle = depth // 2
    unedited = CausalTest("no edit: predictions", "predictor", predict, lambda learner, asked: learner.predict(asked))
    tests = [
        unedited,
        bootstrap_lesion(),
        discount_counterfactual(0.5),
        stitching(),
        response(),
        more_depth(2),
        td_error_swap(middle),
        erasure(middle, learners["td0"]),
        random_erasure(middle, learners["td0"]),
    ]
    prompt = prompt_for(LAYOUT, "causal/table", config.table_tasks, config.context_length)
    table = causal_table(tests, learners, prompt, n_steps=depth, shared=True)
    names = list(learners)
    shares = np.array([[[pairs[a][b] for b in names] for a in names] for pairs in table.values()])
    counted = np.array([[(a, b) in distinct_pairs(names, depth, True) for b in names] for a in names])
    # an uncounted direction never decides; where both count, NaN (no prediction) stays NaN
    both = np.where(counted, shares, inf)
    both = np.triu(np.minimum(both, both.transpose(0, 2, 1)))
    axes = {"test": list(table), "learner": names, "target": names}
    labels = {"analysis": ANALYSIS, "subject": "learners"}
    at = {"depth": [depth]}
    once = np.broadcast_to(np.triu(counted | counted.T, 1), both.shape).ravel()
    return pd.concat(
        [
            tidy(shares[None], at | axes, metric="unexplained", **labels),
            tidy(both[None], at | axes, metric="separation", **labels)[once],
            tidy([SEPARATED], at, metric="threshold", **labels),
        ],
        ignore_index=True,
    )


def slopes(config: CausalTests) -> pd.DataFrame:
    """Rows subject (the construction), seed, test, learner: slope and unexplained with intervals over tasks, and for
    every test its effect. Tests that a subject does not admit have no rows."""
    depth, tables = config.depths[0], []
    for kinds in ([name for name in (*PLANTED, RANDOM) if name not in ALONE], *([name] for name in ALONE)):
        model = joined([network(kind, depth, config.seeds) for kind in kinds])
        fitting = prompt_for(model.layout, "causal/fit", config.fitting_tasks, config.context_length)
        held_out = prompt_for(model.layout, "causal/held-out", config.held_out_tasks, config.context_length)
        with torch.no_grad():
            fits = fit_bank(predict(model, fitting), fitting, n_steps=depth, shared=True)
        learners = {name: fit.learner for name, fit in fits.items()}
        findings = run_tests(model, learners, held_out, standard_tests(depth, learners["td0"]))
        members = {
            "subject": np.repeat(kinds, config.seeds),
            "seed": np.tile(np.arange(config.seeds), len(kinds)),
        }
        tables += [_table(finding, members) for finding in findings]
    return pd.concat(tables, ignore_index=True)


def _table(finding: CausalFinding, members: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Rows of one finding, a block for each member."""
    rows = []
    for i in range(len(members["seed"])):
        rows.append(("", "effect", task_interval(finding.effect[i : i + 1].numpy())))
        for name, agreement in finding.rivals.items():
            if agreement is not None:
                rows += [(name, metric, agreement.interval(metric, i)) for metric in METRICS]
    learner, metric, found = zip(*rows, strict=True)
    numbers = {name: [getattr(interval, name) for interval in found] for name in ("value", "low", "high")}
    per_member = len(rows) // len(members["seed"])
    labels = {name: np.repeat(values, per_member) for name, values in members.items()}
    return tidy(
        numbers["value"],
        {"learner": learner},
        low=numbers["low"],
        high=numbers["high"],
        metric=metric,
        test=finding.test,
        analysis=ANALYSIS,
        **labels,
    )


def network(kind: str, depth: int, n: int) -> LinearTransformer:
    """n looped networks of a kind: constructions with random constants, each in a gauge of its own, or N(0, .3²)."""
    purpose = f"causal/{kind}"
    if kind == RANDOM:
        config = LinearTransformerConfig(depth, True, D_FEATURES)
        draws = RANDOM_SCALE * normals(range(n), purpose, 0, 2, 1, 1, config.width, config.width).double()
        return LinearTransformer(config, draws[:, 0].clone(), draws[:, 1].clone())
    model = construct(kind, draw_constants(kind, depth, True, range(n), purpose), depth)
    return varied(model, ["gauge"] * n, range(n), purpose)


def joined(models: Sequence[LinearTransformer]) -> LinearTransformer:
    """One ensemble of networks that differ in weights alone."""
    P, Q = (torch.cat([getattr(model, name).detach() for model in models]) for name in "PQ")
    return LinearTransformer(models[0].config, P, Q)


def profiles(config: CausalTests) -> pd.DataFrame:
    """Rows learner, distance: the mean response of the reference learners to reward, on chains and own prompts.

    metric stitching: of the query `distance` transitions before the reward; by_hops, by_age: to one more reward on
    every token at that graph distance from the query, or that many transitions before the end of the context.
    """
    learners = reference(config.depths[0], config.step_size)
    prompt = prompt_for(LAYOUT, "causal/profile", config.held_out_tasks, config.context_length)
    chains = stitching_prompt(LAYOUT, config.context_length, config.held_out_tasks)
    distances = {"by_hops": (hops(prompt), FARTHEST), "by_age": (ages(prompt), config.context_length - 1)}
    tables = []
    for name, learner in learners.items():
        kernel = response_kernel(learner, prompt)
        profile = {key: response_by(where, kernel, prompt, end)[0] for key, (where, end) in distances.items()}
        profile["stitching"] = response_to_reward(learner, chains)[0, ..., 0].mean(0)
        for metric, values in profile.items():
            axes = {"distance": list(range(len(values)))}
            tables.append(tidy(values, axes, analysis=ANALYSIS, subject="learners", learner=name, metric=metric))
    return pd.concat(tables, ignore_index=True)


def prompt_for(layout: TokenLayout, purpose: str, n_tasks: int, context_length: int) -> Prompt:
    """Fresh Boyan chains, batch axes (1, n_tasks), every state a query, float64."""
    family = TaskFamily(d_features=D_FEATURES, gamma=GAMMA)
    return family.fresh_prompt([0], purpose, 0, n_tasks, context_length, layout).to(torch.float64)


def summarise(tables: Mapping[str, pd.DataFrame]) -> str:
    """What no test separates, how exact the slopes on a construction's own learner are, and what random networks do."""
    separation, found = select(tables["separation"], metric="separation"), tables["slopes"]
    lines = []
    for depth, rows in separation.groupby("depth"):
        pairs = rows.assign(pair=rows["learner"] + " / " + rows["target"])
        wide = pairs.pivot(index="pair", columns="test", values="value")
        lines.append(f"{depth} steps, {len(wide)} pairs of rivals; a test separates a pair above {SEPARATED}")
        for test in rows["test"].unique():
            known = wide[test].dropna()
            lines.append(f"  {test:24}{(known > SEPARATED).sum():3} of {len(known)} pairs with a prediction from both")
        lost = wide.index[~(wide > SEPARATED).any(axis=1)]
        lines.append(f"  separated by no test: {', '.join(lost) if len(lost) else 'none'}")
    own = found[found["learner"] == found["subject"]]
    slope, missed = (select(own, metric=metric)["value"].dropna() for metric in METRICS)
    lines.append(
        f"constructions, fitted own learner: slopes from {slope.min():.6f} to {slope.max():.6f}, "
        f"at most {missed.max():.1e} unexplained ({own['test'].nunique()} tests, {own['seed'].nunique()} networks each)"
    )
    other = select(found, metric="unexplained")
    td = other[other["learner"] == "td0"].replace(inf, np.nan)
    for kind in found["subject"].unique():
        mine = select(td, subject=kind)["value"].dropna()
        lines.append(f"  unexplained by TD(0), {kind:18} median over tests and networks {mine.median():8.2g}")
    return "\n".join(lines)
