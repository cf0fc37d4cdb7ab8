"""Readings have the signs that the table of hypotheses gives, for as many arms as a policy knows."""

import pytest
import torch

from algorithms.acting_bank import acting_learner
from models.networks import initial_weights
from models.policy import PolicyTransformer
from models.policy_config import PolicyConfig
from probes.battery import BANDIT_TESTS, answers
from probes.influence import law_after
from probes.readings import BANDIT_READINGS, agreement, longest, odds, padded, verdict

# -1, 0 and 1 by test: what is known of a learner without computing anything.
KNOWN = {
    "empirical-mean": {"A": 0, "B": 0, "C": 0, "D": 0, "E": 0, "F": 0, "G": 0, "H": 0, "I scale": 1, "I shift": 1},
    "posterior-mean": {"A": 0, "B": 0, "C": -1, "D": 1, "E": 1, "F": 0, "G": 0, "H": 0, "J coins": 0},
    "ucb": {"A": 0, "B": 0, "C": 1, "D": 1, "E": -1, "F": 0, "G": 0, "H": 0, "J coins": 0, "I scale": -1},
    "lcb": {"A": 0, "B": 0, "C": -1, "D": -1, "E": 1},
    "thompson": {"A": 0, "B": 0, "C": -1, "D": 1, "E": 1, "F": 1},
    "constant-step": {"B": 1, "C": -1, "D": 1, "E": 1, "F": 0, "G": 0, "H": 0},
    "gradient-bandit": {"B": 1, "C": -1, "D": -1},
    "random": dict.fromkeys(BANDIT_READINGS, 0),
}


@pytest.mark.parametrize("n_arms", [3, 5])
@pytest.mark.parametrize("name", KNOWN)
def test_signs_are_those_of_the_hypotheses(name: str, n_arms: int) -> None:
    sober = {} if name == "random" else {"lapse": 0.0}
    law = law_after(acting_learner(name, sober))
    for key, sign in KNOWN[name].items():
        reading = BANDIT_READINGS[key]
        test = padded(BANDIT_TESTS[reading.test], n_arms)
        double = {c: h.each(lambda x: x.double() if x.is_floating_point() else x) for c, h in test.contexts.items()}
        value = reading.of({context: law(history) for context, history in double.items()})
        assert verdict(value).item() == sign, (key, value.item())


def test_padding_comes_first_and_pays_nothing() -> None:
    test = padded(BANDIT_TESTS["B"], 4)
    history = test.contexts["rising"]
    assert history.n_actions == 4
    assert history.action[0, 0].tolist() == [2, 3, 2, 3, *[0] * 6]
    assert history.reward[0, 0].tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 1, 1]
    assert longest(test) == 10
    assert padded(BANDIT_TESTS["B"], 2).contexts["rising"].action.shape == (1, 1, 6)


def test_odds_are_differences_of_logarithms_and_finite() -> None:
    law = torch.tensor([0.5, 0.25, 0.25, 0.0]).double()
    assert odds(law, 0, 1).item() == pytest.approx(0.6931471806)
    assert odds(law, 0, 3).isfinite()


def test_verdicts_have_a_band_that_tells_nothing_and_agreement_leaves_it_out() -> None:
    told = verdict(torch.tensor([-1.0, -0.2, 0.05, 0.2, 0.3]))
    assert told[[0, 2, 4]].tolist() == [-1, 0, 1]
    assert told[[1, 3]].isnan().all()
    one = torch.tensor([[1.0, 1.0, 0.0, 0.2, torch.nan]])
    other = torch.tensor([2.0, -1.0, 0.05, 1.0, 1.0])
    share, n = agreement(one, other)
    assert share.item() == pytest.approx(2 / 3)
    assert n.item() == 3


def test_a_policy_is_asked_in_one_pass_as_step_by_step() -> None:
    config = PolicyConfig(n_observations=1, n_actions=3, n_ctx=20, d_model=8, n_layers=1, n_heads=1, d_mlp=8)
    policy = PolicyTransformer(config, initial_weights(config, [0, 1]))
    test = padded(BANDIT_TESTS["B"], 3)
    with torch.no_grad():
        expected = answers(policy, test)
        for name, context in test.contexts.items():
            torch.testing.assert_close(law_after(policy)(context), expected[name])


def test_every_test_is_read() -> None:
    assert {reading.test for reading in BANDIT_READINGS.values()} == set(BANDIT_TESTS)
