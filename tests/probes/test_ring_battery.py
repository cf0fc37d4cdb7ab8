"""Ring walks go on where they are, mirror images say the same, and learners answer as their algebra has it."""

from functools import cache

import pytest
import torch
from torch import Tensor

from analyses.control_battery import rivals
from probes.influence import law_after
from probes.readings import longest, odds, verdict
from probes.ring_battery import (
    DISTANCES,
    MIRROR,
    ORDERS,
    RING_READINGS,
    mirrored,
    neighbours_exchanged,
    ring_tests,
    ring_walk,
)
from tasks.errors import ConfigError
from tasks.interaction import Interaction, interleaved

TESTS = ring_tests(7)
PATHS = [f"path after reward, {d}" for d in DISTANCES]
REVALUED = {"rewards move": 2, "places change": 3}  # where the choice is
NOT_AS_TRAINED = ("unpaid once", "rewards move")  # where arrival in state 0 does not always pay, or not alone
STAYS = {f"{test}, {order}": -1 for test in REVALUED for order in ORDERS} | {f"{test}, effect": 0 for test in REVALUED}
# On the way back somebody turns round in state 1: what follows is worth something only by a maximum over actions.
ONE_PASS = {PATHS[0]: 1, PATHS[1]: 0, PATHS[2]: 0, "order": 1, "repeats": 1, "unpaid once": 1, "counts": -1}
RETURNS = {PATHS[0]: 1, PATHS[1]: 0, PATHS[2]: 0, "order": -1, "repeats": 1, "unpaid once": 0}
PLANS = dict.fromkeys(RING_READINGS, 1) | dict.fromkeys(("order", "repeats", "turning back", "counts"), 0)
KNOWN = {
    "random": dict.fromkeys(RING_READINGS, 0),
    "monte-carlo-control": {**RETURNS, **STAYS, "turning back": -1} | {f"{test}, effect": 1 for test in REVALUED},
    "policy-gradient": RETURNS | {"turning back": 0, "counts": -1},
    "q-learning": {**ONE_PASS, **STAYS, PATHS[1]: 1, "reward after path, 2": 0, "turning back": 1},
    "expected-sarsa": {**ONE_PASS, **STAYS, PATHS[1]: 1, "reward after path, 2": 0, "turning back": 1},
    "sarsa": {**ONE_PASS, **STAYS, "reward after path, 2": 0, "turning back": -1},
    "successor-representation": {**ONE_PASS, "turning back": -1, "rewards move, effect": 1, "places change, effect": 0},
    "certainty-equivalence": PLANS,
    "ucb-vi": {**PLANS, "repeats": -1, "turning back": -1, "counts": 1, "rewards move, loss first": -1},  # seldom tried
    "posterior-sampling": {f"{test}, effect": 1 for test in REVALUED},
}


@cache
def said_by(name: str) -> dict[str, dict[str, Tensor]]:
    """The law of a rival after every context, by test; walks of one length are one batch."""
    law = law_after(rivals(7)[name])
    walks = {(test, key): walk for test, asked in TESTS.items() for key, walk in asked.contexts.items()}
    said: dict[str, dict[str, Tensor]] = {test: {} for test in TESTS}
    for n_steps in {walk.n_steps for walk in walks.values()}:
        places = [place for place, walk in walks.items() if walk.n_steps == n_steps]
        together = interleaved([walks[place] for place in places])
        laws = law(together.each(lambda x: x.double() if x.is_floating_point() else x))
        for (test, key), own in zip(places, laws.unbind(1), strict=True):
            said[test][key] = own[:, None]
    return said


def towards(name: str, test: str, context: str) -> float:
    """Log odds of L."""
    return odds(said_by(name)[test][context], 0, 1).item()


def moves(walk: Interaction) -> list[tuple[int, int, int, float]]:
    """State, action, next state and reward of every step."""
    columns = (walk.observation, walk.action, walk.next_observation, walk.reward)
    return list(zip(*(column[0, 0].tolist() for column in columns), strict=True))


@pytest.mark.parametrize("name", TESTS)
def test_every_step_begins_where_the_last_has_ended_and_rewards_are_those_of_the_goal(name: str) -> None:
    for walk in TESTS[name].contexts.values():
        assert torch.equal(walk.next_observation[..., :-1], walk.observation[..., 1:])
        assert not walk.done.any()
        if name not in NOT_AS_TRAINED:
            assert torch.equal(walk.reward > 0, walk.next_observation == 0)


def test_every_test_is_read() -> None:
    assert {reading.test for reading in RING_READINGS.values()} == set(TESTS)


def test_policies_that_see_32_steps_can_be_asked_everything() -> None:
    assert max(map(longest, TESTS.values())) < 32


def test_a_step_led_where_six_of_eight_pay_and_was_followed_by_nothing() -> None:
    steps = moves(TESTS["unpaid once"].contexts["given"])
    assert sorted(reward for state, action, _, reward in steps if (state, action) == (1, 0)) == [0] * 2 + [1] * 6
    assert steps.count((2, 0, 1, 0)) == 1
    assert not any(reward for *_, reward in steps[steps.index((2, 0, 1, 0)) :])


def test_either_way_always_pays_and_one_is_taken_four_times_as_often() -> None:
    steps = moves(TESTS["counts"].contexts["given"])
    assert [steps.count(move) for move in ((0, 0, 6, 0), (6, 1, 0, 1), (0, 1, 1, 0), (1, 0, 0, 1))] == [8, 8, 2, 2]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", REVALUED)
def test_the_choice_itself_is_never_seen_again(name: str, order: str) -> None:
    """After what both contexts share, only what is beyond its neighbours."""
    before, after = (moves(TESTS[name].contexts[f"{when}, {order}"]) for when in ("before", "after"))
    shared = next(t for t, (one, other) in enumerate(zip(before, after, strict=False)) if one != other)
    choice = REVALUED[name]
    assert {place for state, _, place, _ in after[:shared] if state == choice} == {choice - 1, choice + 1}
    assert choice not in {state for state, *_ in after[shared:]}
    assert before[-1][2] == after[-1][2] == choice
    came_from = after[-1][0]
    assert came_from == (choice + 1 if order == "loss first" else choice - 1)


@pytest.mark.parametrize(("order", "shared"), [("loss first", 14), ("gain first", 14)])
def test_one_goal_pays_no_more_and_another_does(order: str, shared: int) -> None:
    after = moves(TESTS["rewards move"].contexts[f"after, {order}"])
    early, late = after[:shared], after[shared:]
    assert [place == 0 for _, _, place, _ in early] == [reward > 0 for *_, reward in early]
    assert {state for state, _, _, reward in late if reward} == {3}
    assert {reward for state, action, _, reward in late if (state, action) == (3, 1)} == {1}
    assert sum((state, action) == (1, 0) for state, action, *_ in late) == 3


@pytest.mark.parametrize("order", ORDERS)
def test_places_change_from_one_ring_to_another_and_rewards_of_pairs_do_not(order: str) -> None:
    after = moves(TESTS["places change"].contexts[f"after, {order}"])
    rewards: dict[tuple[int, int], set[float]] = {}
    leads: dict[tuple[int, int], list[int]] = {}
    for state, action, place, reward in after:
        rewards.setdefault((state, action), set()).add(reward)
        leads.setdefault((state, action), []).append(place)
    assert all(len(seen) == 1 for seen in rewards.values())
    changed = {pair for pair, places in leads.items() if len(set(places)) > 1}
    assert changed <= {(1, 1), (2, 0), (4, 1), (5, 0)}
    assert {pair: leads[pair][-1] for pair in ((2, 0), (4, 1))} == {(2, 0): 5, (4, 1): 1}
    new = {frozenset((state, place)) for (state, _), places in leads.items() for place in places[-1:]}
    assert new <= {frozenset(pair) for pair in ((0, 1), (1, 4), (4, 3), (3, 2), (2, 5), (5, 6), (6, 0))}


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
    standing = {"counts": 0, "places change": 3}
    for name, test in TESTS.items():
        ends = {int(walk.next_observation[0, 0, -1]) for key, walk in test.contexts.items() if MIRROR not in key}
        assert ends == {int(name[-1]) if name[-1].isdigit() else standing.get(name, 2)}


def test_order_changes_nothing_but_order() -> None:
    before, after = (TESTS["order"].contexts[name] for name in ("before", "after"))
    steps = [sorted(zip(w.observation[0, 0].tolist(), w.action[0, 0].tolist(), strict=True)) for w in (before, after)]
    assert steps[0] == steps[1]


def test_neighbours_exchanged_twice_are_where_they_were() -> None:
    walk = ring_walk(1, "R R R L L L L", 7)
    other = neighbours_exchanged(walk, 3)
    assert moves(other)[:3] == [(1, 1, 4, 0), (4, 0, 3, 0), (3, 0, 2, 0)]
    assert moves(neighbours_exchanged(other, 3)) == moves(walk)


@pytest.mark.parametrize(
    ("name", "rewards", "places"),
    [
        ("sarsa", 0, 0),
        ("expected-sarsa", 0, 0),
        ("q-learning", 0, 0),
        ("actor-critic", 0, 0),
        ("successor-representation", 1, 0),
        ("certainty-equivalence", 1, 1),
        ("ucb-vi", 1, 1),
        ("posterior-sampling", 1, 1),
    ],
)
def test_revaluation_parts_planners_from_cached_maps_and_both_from_cached_values(
    name: str, rewards: int, places: int
) -> None:
    """What was cached of a choice is what it was, to rounding, as nothing was seen of it."""
    for test, moved in (("rewards move", rewards), ("places change", places)):
        for order in ORDERS:
            before, after = (towards(name, test, f"{when}, {order}") for when in ("before", "after"))
            assert before > 0.05
            if moved:
                assert after < before - 0.3
            else:
                assert after == pytest.approx(before, abs=1e-10)


def test_turning_back_takes_nothing_from_a_maximum() -> None:
    """With alpha = .4 and gamma = .9, Q(2, L) goes on towards gamma max Q(1, .), by a share alpha with every turn."""
    before, after = (towards("q-learning", "turning back", when) for when in ("before", "after"))
    q = 0.4 * 0.9 * 0.4  # of (2, L), and of (0, R), when the second pass comes by
    limit = 0.9 * (0.4 + 0.4 * (1 + 0.9 * q - 0.4))
    assert before == pytest.approx(q / 0.1, abs=1e-10)
    assert after == pytest.approx((limit + 0.6**4 * (q - limit)) / 0.1, abs=1e-10)


@pytest.mark.parametrize("name", KNOWN)
def test_signs_are_those_of_the_hypotheses(name: str) -> None:
    for key, sign in KNOWN[name].items():
        said = said_by(name)[RING_READINGS[key].test]
        value = RING_READINGS[key].of(said)
        assert verdict(value).item() == sign, (key, value.item())
        flipped = {key.removesuffix(MIRROR) if key.endswith(MIRROR) else key + MIRROR: law for key, law in said.items()}
        renamed = {key: law.flip(-1) for key, law in flipped.items()}
        torch.testing.assert_close(RING_READINGS[key].of(renamed), value, atol=1e-10, rtol=0)


def test_small_rings_are_refused() -> None:
    with pytest.raises(ConfigError, match="n_states is 6; allowed: at least 7"):
        ring_tests(6)
