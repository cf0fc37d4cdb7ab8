"""Does a recurrent network learn to estimate values in context as attention does?

The negative control of arXiv 2405.13861 (appendix): a stack of tanh RNN layers, trained by the same multi-task TD on
the same tokens. The paper reports errors that fall in training but do not fall with more context. Here it stands beside
linear attention of the same depth and training, beside batch TD, and beside all rivals fitted to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pandas as pd
import torch

from algorithms.fit import square_mean
from algorithms.temporal_difference import TD0, Zero
from analyses.beside_learners import beside_learners, describe, task_means
from analyses.configs import RNNControl
from analyses.subjects import TrainedSubject, subject_settings, subject_source, trained_subject
from analyses.tables import select
from models.config import RecurrentConfig
from probes.behaviour import Predictor, predict
from probes.verdict import FITS
from tasks.layout import Prompt

ANALYSIS = "rnn-control"
CONTEXT_TASKS = 300
# MSVE at n = 1 and n = 99 on Boyan chains, digitised; their rewards' scale is not known, so only the rise compares.
PUBLISHED = {1: 2.0, 99: 2.30}


def run(config: RNNControl) -> dict[str, pd.DataFrame]:
    """Tables scores and rivals of the RNN and of linear attention, and context: their errors by context length."""
    settings = subject_settings(config)
    recurrent = RecurrentConfig(config.n_layers, config.d_features, config.gamma, config.d_hidden)
    subjects = {"rnn": trained_subject(settings, recurrent), "attention": trained_subject(settings)}
    found = [beside_learners(subject, {"analysis": ANALYSIS, "subject": name}) for name, subject in subjects.items()]
    tables = {name: pd.concat([table[name] for table in found], ignore_index=True) for name in ("scores", "rivals")}
    return {**tables, "context": context_curves(config, subjects)}


def context_curves(config: RNNControl, subjects: Mapping[str, TrainedSubject]) -> pd.DataFrame:
    """msve by context length, means over tasks, and msve_change, what the longest context adds to that of the shortest.

    Longer contexts continue shorter ones on the same tasks, so the change is paired. Batch TD takes the step size that
    was learned beside the attention.
    """
    lengths = sorted(config.context_lengths)
    seeds = {name: subject.seeds for name, subject in subjects.items()} | {"td0": subjects["attention"].seeds}
    step_size = subjects["attention"].record.step_size[-1, subjects["attention"].seeds, None, None].double()
    predictors: dict[str, Predictor] = {name: subject.network() for name, subject in subjects.items()}
    predictors |= {"td0": TD0(config.n_layers, step_size, config.gamma), "zero": Zero()}
    layout = subjects["rnn"].network().layout
    longest = subject_source(config).fresh_prompt([0], "context", 0, CONTEXT_TASKS, lengths[-1], layout)
    prompts = [first_transitions(longest.to(torch.float64), n) for n in lengths]
    tables = []
    for name, predictor in predictors.items():
        with torch.no_grad():
            errors = torch.stack([square_mean(predict(predictor, p) - p.answers, p) for p in prompts])
        labels = {"analysis": ANALYSIS, "subject": name}
        members = seeds.get(name, [pd.NA])
        axes = {"context_length": lengths, "seed": members}
        tables.append(task_means(errors.numpy(), axes, metric="msve", **labels))
        change = (errors[-1] - errors[0]).numpy()
        tables.append(task_means(change, {"seed": members}, metric="msve_change", **labels))
    return pd.concat(tables, ignore_index=True)


def first_transitions(prompt: Prompt, n: int) -> Prompt:
    """The same queries after only the first n transitions of the context."""
    tokens = torch.cat([prompt.context[..., :n, :], prompt.query_tokens], -2)
    return replace(prompt, tokens=tokens, queries=torch.arange(n, n + len(prompt.queries)))


def summarise(tables: Mapping[str, pd.DataFrame]) -> str:
    """How errors change with context, and what the RNN's values are near to."""
    context = tables["context"]
    lengths = context["context_length"].dropna().astype(int)
    lines = [
        f"mean squared value error at {lengths.min()} and {lengths.max()} transitions of context, means over seeds"
    ]
    for name in context["subject"].unique():
        msve = select(context, subject=name, metric="msve").groupby("context_length")["value"].mean()
        change = select(context, subject=name, metric="msve_change")
        fallen = int((change["high"] < 0).sum())
        lines.append(
            f"  {name}: {msve.iloc[0]:.2f} -> {msve.iloc[-1]:.2f}"
            + (f"; falls beyond chance in {fallen} of {len(change)} seeds" if len(change) > 1 else "")
        )
    lines.append(f"  published RNN: {PUBLISHED[1]:.2f} -> {PUBLISHED[99]:.2f} (scale of the rewards not known)")
    for name in ("rnn", "attention"):
        lines += describe(name, tables["scores"], tables["rivals"])
    return "\n".join([*lines, f"  A rival that fits would leave less than {FITS}."])
