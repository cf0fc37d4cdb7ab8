"""Do value estimators that are no linear transformers come to run TD?

ReLU attention, softmax attention over keys (the standard one) and over queries (what arXiv 2405.13861 calls softmax),
and softmax attention with MLPs, all trained by the same multi-task TD beside the linear one. Their values need not be
linear in the query's features, so IWS and SS part, weights say little, and weighted-softmax TD (arXiv 2605.07333)
joins the rivals. Each ensemble gets the evidence card that
`learnscope inspect --rivals all` would draw of it: a verdict per seed, and the findings behind it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from analyses.beside_learners import beside_learners, describe, evidence_tables
from analyses.configs import BeyondLinear
from analyses.evidence import verdict_counts
from analyses.parallel import in_parallel
from analyses.subjects import TrainedSubject, subject_settings, trained_subject
from analyses.tables import select, tidy
from models.config import ConfigError, ValueTransformerConfig
from probes.verdict import FITS

ANALYSIS = "beyond-linear"
MLP_RATIO = 4  # d_mlp / width, as is usual
# Similarity to batch TD over the last 500 of 4000 tasks, L = 3 looped, digitised from the authors' vector figures; the
# ReLU run stands in their source only, its SS partly undefined.
PUBLISHED = {
    "linear": {"iws": 0.926, "ss": 0.926, "vd": 0.026},
    "relu": {"iws": 0.903, "ss": 0.63, "vd": 0.097},
    "softmax-over-queries": {"iws": 0.848, "ss": 0.459, "vd": 0.096},
}


def run(config: BeyondLinear) -> dict[str, pd.DataFrame]:
    """Tables scores (every network by itself and beside batch TD), rivals (fitted to every seed), answers and findings.

    The last two make the evidence card of every architecture. Raises ConfigError for an activation: the architectures
    name theirs.
    """
    if config.activation != "linear":
        raise ConfigError(f"activation is {config.activation!r}; choose by --architectures here")
    jobs = [(config, architecture) for architecture in config.architectures]
    found = in_parallel(examined, jobs, "training and examining", "architecture")
    tables = {name: pd.concat([part[name] for part in found], ignore_index=True) for name in found[0]}
    return tables | {"scores": pd.concat([published(config), tables["scores"]], ignore_index=True)}


def examined(config: BeyondLinear, architecture: str) -> dict[str, pd.DataFrame]:
    """The tables of one architecture, trained where that was not done before."""
    subject, labels = trained(config, architecture), {"analysis": ANALYSIS, "subject": architecture}
    return beside_learners(subject, labels) | evidence_tables(subject, labels)


def trained(config: BeyondLinear, architecture: str) -> TrainedSubject:
    """The ensemble of that architecture; all else is as the settings say."""
    settings = subject_settings(config)
    if architecture != "softmax-mlp":
        return trained_subject(replace(settings, activation=architecture))
    d_mlp = MLP_RATIO * (2 * config.d_features + 1)
    network = ValueTransformerConfig(config.n_layers, config.d_features, config.gamma, config.looped, d_mlp)
    return trained_subject(settings, network)


def published(config: BeyondLinear) -> pd.DataFrame:
    """The authors' numbers for the architectures that they trained, learner "published"."""
    numbers = {name: PUBLISHED[name] for name in config.architectures if name in PUBLISHED}
    tables = [
        tidy([value], {"seed": [pd.NA]}, analysis=ANALYSIS, subject=name, learner="published", metric=metric)
        for name, metrics in numbers.items()
        for metric, value in metrics.items()
    ]
    return pd.concat(tables, ignore_index=True) if tables else tidy(np.empty(0), {"seed": []})


def summarise(tables: Mapping[str, pd.DataFrame]) -> str:
    """Three lines per architecture: its skill and similarity to TD, the rivals that come nearest, and the verdicts."""
    scores, rivals = tables["scores"], tables["rivals"]
    lines = ["value estimators by architecture, medians over seeds; rivals fitted to each seed"]
    for architecture in rivals["subject"].unique():
        lines += describe(architecture, scores, rivals)
        lines.append(f"    verdicts by seed: {verdict_counts(select(tables['answers'], subject=architecture))}")
    return "\n".join([*lines, f"  A rival that fits would leave less than {FITS}."])
