"""What seeds of one objective that act well, but by weights of other signs, have in common.

Seeds are grouped by the signs of alpha_eff and gamma_eff: TD subtracts the own value and adds the next one, so both
are positive. Where |alpha_eff| < SIGNED, no sign says anything.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from analyses.action_edits import HELD
from analyses.tables import select, tidy
from probes.behaviour import median_interval

ACTS = 0.75  # half of the way from chance to always right
SIGNED = 0.05
MATTERS = 0.1  # of accuracy
BLOCKS = ("P reward,reward", "P next_features,features", "P next_features,next_features")
SHOWN = ("accuracy", "accuracy, 2 x loops", *HELD, "alpha_eff", "gamma_eff")
NO_SIGN = "no sign"


def classes(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """By subject and class (column target): how many seeds act, and the medians over them with exact intervals.

    Metrics: `seeds`, their `share` of all that act with its exact interval; those of SHOWN; `without <block>`, the
    accuracy that is left, for BLOCKS and every other that costs MATTERS in a class; what the nearest rival leaves of
    the advantages, `nearest`, its name in column learner; and the squared cosines of table successors, at the layer
    where they are largest.
    """
    wide = tables["seeds"].pivot_table("value", ["subject", "seed"], "metric")
    wide = wide[wide["accuracy"] > ACTS]
    signs = pd.Series([sign_class(*row) for row in wide[["alpha_eff", "gamma_eff"]].to_numpy()], wide.index, dtype=str)
    places = [
        (name, sign)
        for name in tables["seeds"]["subject"].unique()
        if name in wide.index.get_level_values("subject")
        for sign in signs.loc[name].value_counts().index
    ]
    found = []
    for name, sign in places:
        labels: dict[str, object] = {"subject": name, "target": sign}
        alike = signs.loc[[name]] == sign
        members, seeds = alike[alike], alike[alike].index.get_level_values("seed")
        share = binomtest(len(seeds), len(alike)).proportion_ci()
        found.append(tidy([len(seeds)], {"metric": ["seeds"]}).assign(**labels))
        found.append(tidy([alike.mean()], {"metric": ["share"]}, low=share.low, high=share.high).assign(**labels))
        for metric in SHOWN:
            found.append(_row(wide.loc[members.index, metric], metric, labels))
        accuracy = wide.loc[members.index, "accuracy"].median()
        found += _lesions(_of(tables["lesions"], name, seeds), accuracy, labels)
        left = select(_of(tables["rivals"], name, seeds), metric="disagreement", target="advantages")
        learner = left.groupby("learner")["value"].median().idxmin()
        found.append(_row(select(left, learner=learner)["value"], "nearest", labels | {"learner": learner}))
        carried = _of(tables["successors"], name, seeds).groupby(["steps", "layer"])["value"]
        for steps, medians in carried.median().groupby("steps"):
            layer = medians.idxmax()[1]
            values = carried.get_group((steps, layer))
            found.append(_row(values, f"squared cosine, {steps} steps on", labels | {"layer": layer}))
    return pd.concat(found, ignore_index=True) if found else tidy(np.empty(0), {"seed": []})


def sign_class(alpha: float, gamma: float) -> str:
    """The class of one seed, by its alpha_eff and gamma_eff."""
    if not abs(alpha) >= SIGNED:
        return NO_SIGN
    return ", ".join(f"{name} {'> 0' if value > 0 else '< 0'}" for name, value in (("α", alpha), ("γ", gamma)))


def class_lines(found: pd.DataFrame) -> list[str]:
    """A line per class, below the name of its subject."""
    lines = ["classes of the seeds that act, by the signs of alpha_eff and gamma_eff; medians"]
    for name, rows in found.groupby("subject", sort=False):
        for sign, own in rows.groupby("target", sort=False):
            value, learner = own.set_index("metric")["value"], select(own, metric="nearest")["learner"].iloc[0]
            (share,) = select(own, metric="share").itertuples()
            line = f"  {name}: {value['seeds']:.0f} with {sign}, {share.value:.0%} [{share.low:.0%}, {share.high:.0%}]"
            line += f": right {value['accuracy']:.2f}"
            line += f", 2 x loops {value['accuracy, 2 x loops']:.2f}, gamma_eff {value['gamma_eff']:.2f}"
            told = (f"{metric.removeprefix('accuracy, ')} {value[metric]:.2f}" for metric in HELD)
            lines.append(f"{line}; in context " + ", ".join(told))
            without = own[own["metric"].str.startswith("without")].set_index("metric")["value"]
            told = ", ".join(f"{block.removeprefix('without ')} {left:.2f}" for block, left in without.items())
            cosines = own[own["metric"].str.startswith("squared cosine")]
            carried = ", ".join(f"{row.value:.2f} (layer {row.layer})" for row in cosines.itertuples())
            lines.append(f"    nearest {learner} {value['nearest']:.2g}; without {told}")
            lines.append(f"    squared cosines with the laws 1, 2, ... steps on: {carried}")
    return lines


def _of(table: pd.DataFrame, subject: str, seeds: pd.Index) -> pd.DataFrame:
    own = select(table, subject=subject)
    return own[own["seed"].isin(seeds)]


def _lesions(lesions: pd.DataFrame, accuracy: float, labels: dict[str, object]) -> list[pd.DataFrame]:
    rows = select(lesions, metric="accuracy").groupby("target", sort=False)["value"]
    shown = {block: values for block, values in rows if block in BLOCKS or accuracy - values.median() > MATTERS}
    return [_row(values, f"without {block}", labels) for block, values in shown.items()]


def _row(values: pd.Series, metric: str, labels: Mapping[str, object]) -> pd.DataFrame:
    middle = median_interval(values.to_numpy(dtype=float))
    value = tidy([middle.value], {"metric": [metric]}, low=middle.low, high=middle.high)
    return value.assign(**labels)
