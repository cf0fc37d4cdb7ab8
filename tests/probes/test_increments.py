"""Increments: activations that hold a quantity add what the base leaves, and controls add nothing."""

import pytest
import torch

from analyses.tables import select
from probes.increments import increments


def test_what_is_there_is_added_and_what_is_not_is_not() -> None:
    """Half of the variance of z = b + x is the base's; activations hold x in the second depth of the first seed."""
    generator = torch.Generator().manual_seed(0)
    tasks, times = 100, 4
    b, x, noise = (torch.randn(tasks * times, 2, generator=generator, dtype=torch.float64) for _ in range(3))
    junk = torch.randn(2, tasks * times, 2, 6, generator=generator, dtype=torch.float64)
    activations = junk.clone()
    activations[1, :, 0, :2] = x @ torch.tensor([[1.0, 2.0], [0.5, -1.0]], dtype=torch.float64)
    groups = torch.arange(tasks).repeat_interleave(times)
    targets = {"sum": b + x, "noise": noise, "known": b[:, :1]}
    found = increments(activations, junk, b, targets, groups)
    value = found.rows.set_index(["metric", "target", "layer", "position"])["value"]
    assert abs(value["base", "sum", 0, 0] - 0.5) < 0.1
    assert value["base", "known", 1, 1] > 0.99
    assert abs(value["increment", "sum", 1, 0] - 0.5) < 0.1
    beyond = value["increment", "sum", 1, 0] - value["untrained", "sum", 1, 0]
    assert value["beyond untrained", "sum", 1, 0] == pytest.approx(beyond, abs=1e-12)
    for place in ((0, 0), (0, 1), (1, 1)):
        assert abs(value["increment", "sum", *place]) < 0.05
    for control in ("untrained", "shuffled", "random"):
        assert abs(select(found.rows, metric=control)["value"]).max() < 0.05
    assert abs(select(found.rows, metric="increment", target="noise")["value"]).max() < 0.05
    read = found.coef["sum"]
    assert read.shape == (2, 2, 6, 2)
    restored = activations[1, :, 0] @ read[1, 0]
    assert (restored - x).square().mean() < 0.01
