"""The planted value estimators: what there is of them (see `analyses.planted`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from analyses.decoys import ShuffledRewards, context_blind, random_network, smoother, trained_decoy
from analyses.draws import D_FEATURES, GAMMA, VARIANTS, Constants, construct, draw_constants
from analyses.planted import TRAINED_LAYERS, Decoy, Population, Size, drawn_depth, training_seeds
from models.config import LinearTransformerConfig, Mask
from tasks.layout import transition_layout
from tasks.markov_reward import TaskFamily
from tasks.streams import uniforms

SOURCE = TaskFamily(d_features=D_FEATURES, gamma=GAMMA)
DEEPEST = {True: 8, False: 4}  # by looped
TEACHERS = ("td0", "residual-gradient", "td-lambda", "myopic")


def student_config(drawn: Constants, looped: bool) -> LinearTransformerConfig:
    """A student of TD(lambda) has its mask."""
    masks = (Mask("query", float(drawn["lam"][0, 0])),) if "lam" in drawn else (Mask(),)
    return LinearTransformerConfig(TRAINED_LAYERS, looped, D_FEATURES, gamma=GAMMA, masks=masks)


def decoys(split: str, size: Size, folder: Path) -> Iterator[Decoy]:
    """Random and trained networks, look-ups by softmax attention, and weights that no context moves."""
    members = range(size.decoys)
    for looped in (True, False):
        purpose = f"planted/{split}/random/{'looped' if looped else 'separate'}"
        n_layers = drawn_depth(purpose, DEEPEST[looped])
        config = LinearTransformerConfig(n_layers, looped, D_FEATURES, gamma=GAMMA)
        yield Decoy("random", random_network(config, members, purpose), n_layers, looped)
    for kind, sharpness in (("nearest-neighbour", (20.0, 200.0)), ("kernel-smoother", (1.0, 5.0))):
        purpose = f"planted/{split}/{kind}"
        n_layers = 1 + int(3 * uniforms([0], f"{purpose}/depth", 0).item())
        config = LinearTransformerConfig(n_layers, True, D_FEATURES, activation="softmax", gamma=GAMMA)
        yield Decoy(kind, smoother(config, members, purpose, sharpness=sharpness), n_layers, True)
    single_task = TaskFamily(d_features=D_FEATURES, gamma=GAMMA, n_tasks=1)
    first = len(TEACHERS) * 2  # the groups of seeds before it are the students'
    for i, (kind, source) in enumerate((("shuffled-rewards", ShuffledRewards(SOURCE)), ("memorised", single_task))):
        config = LinearTransformerConfig(TRAINED_LAYERS, True, D_FEATURES, gamma=GAMMA)
        seeds = training_seeds(split, first + i, size.decoys)
        yield Decoy(kind, trained_decoy(config, source, seeds, size.decoy_steps, folder), TRAINED_LAYERS, True)
    seeds = training_seeds(split, first + 2, size.decoys)
    yield Decoy("context-blind", context_blind(seeds, D_FEATURES), TRAINED_LAYERS, True)


VALUE_ESTIMATORS = Population(
    name="planted",
    layout=transition_layout(D_FEATURES, discount=GAMMA),
    sources=(SOURCE,),
    context_length=30,
    deepest=DEEPEST,
    constructed=(
        "td0",
        "td-lambda",
        "residual-gradient",
        "average-reward-td",
        "preconditioned-td",
        "td-plus-plus",
        "myopic",
    ),
    averaging="reward-average",
    mixtures=(
        ("td0", "residual-gradient"),
        ("td0", "myopic"),
        ("td0", "monte-carlo"),
        ("td-lambda", "average-reward-td"),
        ("residual-gradient", "lstd"),
        ("myopic", "td-lambda"),
    ),
    functions=(),
    teachers=TEACHERS,
    sizes={
        "smoke": Size(1, 0, 1, ("exact", "gauge", "perturbed 1 %"), 1, 0, 1, 1, 400, 2, 20),
        "laptop": Size(2, 1, 2, VARIANTS, 4, 0, 4, 3, 800, 6, 300),
        "paper": Size(3, 2, 3, VARIANTS, 6, 0, 4, 8, 1500, 16, 2000),
    },
    draw=draw_constants,
    construct=construct,
    student=student_config,
    decoys=decoys,
)
