"""The recurrent control on two tiny seeds: contexts are nested, errors are what they are called."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import analyses.beside_learners
import analyses.rnn_control
from algorithms.temporal_difference import TD0
from analyses.configs import RNNControl
from analyses.rnn_control import first_transitions, run, summarise
from analyses.tables import select
from figures import rnn_control
from tasks.layout import transition_layout
from tasks.markov_reward import TaskFamily

TINY: dict[str, Any] = {"seeds": 2, "train_tasks": 20, "d_features": 2, "n_states": 4, "context_length": 6}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analyses.beside_learners, "FITTING_TASKS", 12)
        patch.setattr(analyses.beside_learners, "HELD_OUT_TASKS", 20)
        patch.setattr(analyses.rnn_control, "CONTEXT_TASKS", 30)
        yield run(RNNControl(out=tmp_path_factory.mktemp("runs"), context_lengths=(9, 1, 4), **TINY))


def test_shorter_contexts_are_the_beginnings_of_longer_ones() -> None:
    prompt = TaskFamily(n_states=4, d_features=2).fresh_prompt([0], "x", 0, 3, 9, transition_layout(2, discount=0.9))
    short = first_transitions(prompt, 4)
    assert torch.equal(short.context, prompt.context[..., :4, :])
    assert torch.equal(short.query_tokens, prompt.query_tokens)
    assert torch.equal(short.answers, prompt.answers)
    assert torch.equal(first_transitions(prompt, 9).tokens, prompt.tokens)
    learner = TD0(2)
    assert not torch.equal(learner.predict(short), learner.predict(prompt))


def test_errors_by_context_length(tables: dict[str, pd.DataFrame]) -> None:
    context = tables["context"]
    msve = select(context, metric="msve")
    assert set(msve["subject"]) == {"rnn", "attention", "td0", "zero"}
    assert sorted(msve["context_length"].unique()) == [1, 4, 9]
    assert select(msve, subject="zero")["value"].nunique() == 1
    for name in ("rnn", "attention", "td0"):
        by_length = select(msve, subject=name).pivot_table("value", "seed", "context_length")
        change = select(context, subject=name, metric="msve_change").set_index("seed")["value"]
        np.testing.assert_allclose(change, by_length[9] - by_length[1], atol=1e-10)


def test_attention_is_linear_in_the_query_and_the_rnn_is_not(tables: dict[str, pd.DataFrame]) -> None:
    found = select(tables["scores"], learner="subject", metric="r_squared").groupby("subject")["value"].mean()
    assert found["attention"] == pytest.approx(1, abs=1e-10)
    assert found["rnn"] < 1 - 1e-6


def test_figure_and_summary_need_only_the_tables(tables: dict[str, pd.DataFrame]) -> None:
    assert "published RNN" in summarise(tables)
    assert len(rnn_control.draw(tables).get_axes()) == 3
