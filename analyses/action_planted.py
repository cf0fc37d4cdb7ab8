"""Networks whose algorithm is known, for the prompts of value against policy: what the examination must name.

TD(0) and TD++ with steps of their own, as their constructions write them and with noise in all weights that matter.
"""

from __future__ import annotations

import torch

from analyses.action_subjects import Subjects
from analyses.configs import ValueVsPolicy
from analyses.draws import construct, varied
from models.linear import LinearTransformer
from tasks.streams import uniforms

# Between a third and two thirds of the largest step at which TD(0) converges on most walks of 14 pairs.
STEPS = (4.0, 8.0)
# What TD++ writes into phi', times the share of visits, 1 / 14 a pair. With signs as trained value estimators have them
# (-, +) TD(0) leaves .001 of its advantages, which noise in the weights hides; with these ten times as much.
REWRITES = {"from_features": 1.5, "from_next": -1.5}
VARIANTS = {"exact": "", "perturbed 3 %": ", 3 % noise"}
PLANTED = {
    f"planted {title}{suffix}": (learner, variant)
    for learner, title in (("td0", "TD(0)"), ("td-plus-plus", "TD++"))
    for variant, suffix in VARIANTS.items()
}
MEMBERS = 6  # which the exact interval of a median needs


def planted(config: ValueVsPolicy, name: str) -> tuple[Subjects, LinearTransformer, list[int]]:
    """The subject of that name in PLANTED: its members differ in their steps and their noise."""
    learner, variant = PLANTED[name]
    subjects, members = Subjects(config, name), list(range(min(MEMBERS, config.seeds)))
    low, high = STEPS
    step_size = low + (high - low) * uniforms(members, "planted/step size", 0, 1, 1).double()
    identity = torch.eye(subjects.config.d_features, dtype=torch.float64)
    drawn = {"step_size": step_size, "preconditioner": step_size[..., None, None] * identity}
    if learner == "td-plus-plus":
        drawn |= {key: torch.full_like(step_size, value) for key, value in REWRITES.items()}
    made = varied(construct(learner, drawn, config.n_layers), [variant] * len(members), members, f"planted/{learner}")
    return subjects, LinearTransformer(subjects.config, made.P.detach(), made.Q.detach()), members
