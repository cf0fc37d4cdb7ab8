"""Ring walks go on where they are, mirror images say the same, and learners answer as their algebra has it."""

import pytest
import torch

from analyses.control_battery import rivals
from probes.influence import law_after
from probes.readings import verdict
from probes.ring_battery import DISTANCES, MIRROR, RING_READINGS, mirrored, ring_tests, ring_walk
from tasks.errors import ConfigError

TESTS = ring_tests(7)
PATHS = [f"path after reward, {d}" for d in DISTANCES]
# On the way back somebody turns round in state 1: what follows is worth something only by a maximum over actions.
ONE_PASS = {PATHS[0]: 1, PATHS[1]: 0, PATHS[2]: 0, "order": 1, "repeats": 1}
KNOWN = {
    "random": dict.fromkeys(RING_READINGS, 0),
    "monte-carlo-control": {PATHS[0]: 1, PATHS[1]: 0, PATHS[2]: 0, "order": -1, "repeats": 1},
    "policy-gradient": {PATHS[0]: 1, PATHS[1]: 0, PATHS[2]: 0, "order": -1, "repeats": 1},
    "q-learning": ONE_PASS | {PATHS[1]: 1, "reward after path, 2": 0},
    "sarsa": ONE_PASS | {"reward after path, 2": 0},
    "successor-representation": ONE_PASS,
    "certainty-equivalence": {**dict.fromkeys(RING_READINGS, 1), "order": 0, "repeats": 0},
}


@pytest.mark.parametrize("name", TESTS)
def test_every_step_begins_where_the_last_has_ended_and_rewards_are_those_of_the_goal(name: str) -> None:
    for walk in TESTS[name].contexts.values():
        assert torch.equal(walk.next_observation[..., :-1], walk.observation[..., 1:])
        assert not walk.done.any()
        assert torch.equal(walk.reward > 0, walk.next_observation == 0)


def test_a_walk_reads_as_it_is_written() -> None:
    walk = ring_walk(1, "L+ R R", 7)
    assert walk.observation[0, 0].tolist() == [1, 0, 1]
    assert walk.next_observation[0, 0].tolist() == [0, 1, 2]
    assert walk.action[0, 0].tolist() == [0, 1, 1]
    assert walk.reward[0, 0].tolist() == [1, 0, 0]
    other = mirrored(walk)
    assert other.observation[0, 0].tolist() == [6, 0, 6]
    assert other.action[0, 0].tolist() == [1, 0, 0]


def test_somebody_stands_at_the_distance_that_is_named() -> None:
    for name, test in TESTS.items():
        ends = {int(walk.next_observation[0, 0, -1]) for key, walk in test.contexts.items() if MIRROR not in key}
        assert ends == {int(name[-1]) if name[-1].isdigit() else 2}


def test_order_changes_nothing_but_order() -> None:
    before, after = (TESTS["order"].contexts[name] for name in ("before", "after"))
    steps = [sorted(zip(w.observation[0, 0].tolist(), w.action[0, 0].tolist(), strict=True)) for w in (before, after)]
    assert steps[0] == steps[1]


@pytest.mark.parametrize("name", KNOWN)
def test_signs_are_those_of_the_hypotheses(name: str) -> None:
    law = law_after(rivals(7)[name])
    for key, sign in KNOWN[name].items():
        contexts = TESTS[key].contexts.items()
        said = {
            context: law(walk.each(lambda x: x.double() if x.is_floating_point() else x)) for context, walk in contexts
        }
        value = RING_READINGS[key].of(said)
        assert verdict(value).item() == sign, (key, value.item())
        flipped = {key.removesuffix(MIRROR) if key.endswith(MIRROR) else key + MIRROR: law for key, law in said.items()}
        renamed = {key: law.flip(-1) for key, law in flipped.items()}
        torch.testing.assert_close(RING_READINGS[key].of(renamed), value, atol=1e-10, rtol=0)


def test_small_rings_are_refused() -> None:
    with pytest.raises(ConfigError, match="n_states is 6; allowed: at least 7"):
        ring_tests(6)
