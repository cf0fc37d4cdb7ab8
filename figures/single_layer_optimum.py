"""One trained layer beside Theorems 1 and 5: eigenvalues of its step, losses of the rivals, the best ReLU step."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.style import LEARNERS, PUBLISHED, SUBJECT

RIVALS = {
    "theorem": ("Theorem 1", {**LEARNERS["preconditioned-gd"], "marker": "s"}),
    "gd": ("best step of gradient descent", LEARNERS["gd"]),
    "inverse-covariance": ("best multiple of Σ⁻¹", {"color": "#D55E00", "marker": "^"}),
}


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Eigenvalues for every spectrum above; losses and the ReLU step below."""
    names = list(tables["losses"]["subject"].unique())
    figure, axes = plt.subplots(2, len(names), figsize=(4 * len(names), 6.6))
    for ax, name in zip(axes[0], names, strict=True):
        rows = tables["eigenvalues"]
        _eigenvalues(ax, rows[rows["subject"] == name])
        ax.set_title(f"{name} spectrum of Σ")
    axes[0, 0].set_ylabel("eigenvalue of the step A")
    axes[0, 0].legend(loc="best")
    _losses(axes[1, 0], tables["losses"], names)
    _distances(axes[1, 1], tables["distances"], names)
    _relu(axes[1, 2], tables["relu"])
    for ax in axes[1, 3:]:
        ax.set_axis_off()
    figure.suptitle("One layer of linear attention, every weight free: is it the step of Theorem 1?")
    return figure


def _eigenvalues(axes: Axes, rows: pd.DataFrame) -> None:
    """Along every eigenvector of Sigma, from its largest eigenvalue on."""
    place = rows["component"].max() - rows["component"]
    for name, (label, style) in RIVALS.items():
        mine = rows["learner"] == name
        axes.plot(place[mine], rows["value"][mine], label=label, linestyle=":", **style)
    mine = rows["learner"] == "network"
    axes.plot(place[mine], rows["value"][mine], label="network, a seed each", linestyle="none", alpha=0.5, **SUBJECT)
    theirs = rows[rows["learner"] == "theorem"]
    axes.set(
        xticks=rows["component"].max() - theirs["component"],
        xticklabels=[f"{value:.3g}" for value in theirs["covariance"]],
        xlabel="eigenvalue of Σ",
    )
    if theirs["value"].max() > 2 * theirs["value"].min():
        axes.set_yscale("log")
    else:
        axes.set_ylim(0, 2 * theirs["value"].max())


def _losses(axes: Axes, losses: pd.DataFrame, names: list[str]) -> None:
    """Excess over the network on the same prompts, relative to the network's loss, with the paired interval."""
    own = losses[(losses["learner"] == "network") & (losses["metric"] == "loss")].groupby("subject")["value"].mean()
    for shift, (rival, (label, style)) in zip((-0.2, 0.0, 0.2), RIVALS.items(), strict=True):
        mine = losses[(losses["learner"] == rival) & (losses["metric"] == "excess")]
        middle = mine.groupby("subject")[["value", "low", "high"]].mean().loc[names].div(own.loc[names], axis=0)
        error = np.abs(middle[["low", "high"]].to_numpy().T - middle["value"].to_numpy())
        axes.errorbar(
            np.arange(len(names)) + shift, middle["value"], yerr=error, linestyle="none", label=label, **style
        )
    axes.axhline(0, color="0.4", linewidth=0.8)
    axes.set(
        xticks=range(len(names)),
        xticklabels=names,
        title="Loss beyond the network's, on the same prompts",
        ylabel="excess, of the network's loss (mean, 95 %)",
    )


def _distances(axes: Axes, distances: pd.DataFrame, names: list[str]) -> None:
    for shift, (rival, (label, style)) in zip((-0.2, 0.0, 0.2), RIVALS.items(), strict=True):
        mine = distances[(distances["learner"] == rival) & (distances["metric"] == "distance")]
        place = mine["subject"].map({name: i + shift for i, name in enumerate(names)})
        axes.plot(place, mine["value"], linestyle="none", alpha=0.6, label=label, **style)
    sampled = distances[distances["metric"] == "distance-on-prompts"]
    place = sampled["subject"].map({name: i - 0.2 for i, name in enumerate(names)})
    style = {**RIVALS["theorem"][1], "fillstyle": "none"}
    axes.plot(place, sampled["value"], linestyle="none", label="Theorem 1, trained on prompts alone", **style)
    axes.axhline(0.02, color="0.4", linestyle="--", linewidth=0.8)
    axes.set(
        xticks=range(len(names)),
        xticklabels=names,
        yscale="log",
        title="Distance of the network's A, relative (a seed each)",
        ylabel="|A - A'| / |A'|",
    )
    axes.legend(loc="best")


def _relu(axes: Axes, rows: pd.DataFrame) -> None:
    moments = rows[rows["metric"] != "step"].set_index("metric")["value"]
    step = rows[rows["metric"] == "step"].set_index("learner")
    best, theorem = step.loc["network"], step.loc["theorem", "value"]
    at = np.linspace(0, 2 * theorem, 100)

    def loss(c: np.ndarray) -> np.ndarray:
        return moments["y^2"] - 2 * c * moments["f y"] + c**2 * moments["f^2"]

    axes.plot(at, loss(at), color=SUBJECT["color"], label="loss on samples")
    axes.axvspan(best["low"], best["high"], color="0.85", label="best step (95 %)")
    axes.plot([theorem], loss(np.array([theorem])), label="Theorem 5", **PUBLISHED)
    axes.set(title="ReLU attention, white covariates", xlabel="step size", ylabel="loss")
    axes.legend(loc="best")
