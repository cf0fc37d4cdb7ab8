"""The rule by which a quantity that a policy carries counts as used, or not, or as not to be told."""

from __future__ import annotations

import pandas as pd

DECODABLE = 0.05  # of a quantity's variance, that a layer adds to the base beyond what an untrained one adds
USED = 0.1  # of the way to the other context, beyond random subspaces
ABSENT, IDLE, UNTOLD, IN_USE = "not decodable", "decodable, not used", "decodable, cannot tell", "used"


def verdict(layers: pd.DataFrame) -> str:
    """By layer: carried, what it adds to the base beyond an untrained network (0 if its interval has zero); value, low,
    high of the way that a swap goes beyond random subspaces, farthest, of the best of those, room, of everything.

    not decodable           no layer carries DECODABLE
    used                    at one that does a swap goes USED of the way, surely above zero, beyond all subspaces
    decodable, not used     at every one the interval ends below USED, and there is room to go farther
    decodable, cannot tell  else
    """
    known = layers[layers["carried"] >= DECODABLE]
    if known.empty:
        return ABSENT
    if ((known["value"] >= USED) & (known["low"] > 0) & (known["value"] > known["farthest"])).any():
        return IN_USE
    return IDLE if ((known["high"] < USED) & (known["room"] >= USED)).all() else UNTOLD


def best(layers: pd.DataFrame) -> int:
    """Of the layers that carry most of what counts, the one whose swap surely goes farthest."""
    known = layers[layers["carried"] >= DECODABLE]
    return int((layers["carried"] if known.empty else known["low"]).idxmax())
