"""The intervention on networks that continue sequences: does a prediction depend on more than the last two states?"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from algorithms.learner import Learner
from probes.behaviour import Predictor, predict
from probes.causal_prompts import with_tokens
from probes.interventions import CausalTest
from tasks.layout import Prompt

KEPT = 2


def sequence_tests(_n_layers: int, _probed: Learner | None = None) -> tuple[CausalTest, ...]:
    """All tests of a network of states, whatever its depth."""
    return (other_history(),)


def other_history() -> CausalTest:
    """Gives every sequence the first states of the sequence before, all but the last two tokens of the prompt.

    Only the longest prefix is asked. A two-token rule predicts no change; whoever averages over pairs of states does.
    """

    def last(own: Prompt) -> Prompt:
        only = torch.zeros_like(own.weights)
        only[..., -1] = 1.0
        return replace(own, weights=only)

    def change(predictor: Predictor, prompt: Prompt) -> Tensor:
        tokens = prompt.tokens.clone()
        tokens[..., :-KEPT, :] = prompt.tokens.roll(1, -3)[..., :-KEPT, :]
        if "previous" in prompt.layout:  # every token repeats the state before it
            states = prompt.layout.read(tokens, "features")
            tokens[..., prompt.layout["previous"]] = torch.nn.functional.pad(states[..., :-1, :], (0, 0, 1, 0))
        return predict(predictor, with_tokens(prompt, tokens)) - predict(predictor, prompt)

    return CausalTest("other history", "predictor", change, change, last)
