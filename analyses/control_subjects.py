"""The policies that analyses of decision problems train: small transformers on rings, each for another objective.

The reward of a ring comes with the move that reaches the goal, so that a token, which holds a whole transition (arXiv
2306.14892), says what the move was worth: what is one move away takes one look-up, everything farther needs them
joined, and there greed for the next reward is at chance. (Where it comes with the move after, as in tasks/mdps.py, two
look-ups must be learnt before the first one pays.) Sources act by soft laws, which distillation is shown in whole.
"""

from __future__ import annotations

from dataclasses import replace

from algorithms.acting import ActingLearner
from algorithms.bandit import Random
from algorithms.control import QLearning
from algorithms.planning import CertaintyEquivalence
from algorithms.predictive_maps import SuccessorRepresentation
from analyses.configs import ControlSettings
from analyses.limits import once_each
from analyses.policy_subjects import PolicySubject
from models.policy_config import PolicyConfig, PolicyTraining
from models.policy_sources import DecisionPretraining, Distillation, Following, PolicySource, Reinforcement
from probes.policy_targets import GAMMA, PSEUDO_COUNT, STEP_SIZE
from tasks.arrival import OnArrival
from tasks.mdps import MDPFamily

PRETRAINED, REINFORCED, GONE_ON = "decision-pretrained", "reinforced", "reinforced after pretraining"
N_ACTIONS = 2
N_SWEEPS = 10  # a ring of 7 states is planned through in 4
DRAWN_TOGETHER = 8  # batches of imitation


def sources() -> dict[str, ActingLearner]:
    """What is distilled, by its name in the bank: one learner without a model, one with, one with a cached map."""
    soft = {"temperature": 0.1, "lapse": 0.05, "gamma": GAMMA}
    return {
        "q-learning": QLearning(step_size=STEP_SIZE, initial=0.0, **soft),
        "certainty-equivalence": CertaintyEquivalence(n_sweeps=N_SWEEPS, pseudo_count=PSEUDO_COUNT, **soft),
        "successor-representation": SuccessorRepresentation(step_size=STEP_SIZE, **soft),
    }


def on_random_walks(source: str) -> str:
    """The name of policies that learnt a source's laws there."""
    return f"{source} on random walks"


def on_own_walks(source: str) -> str:
    """The name of policies that learnt a source's laws along its own walks."""
    return f"distilled from {source}"


def ring(config: ControlSettings) -> OnArrival:
    """The tasks, training and test: rings without slips."""
    return OnArrival(MDPFamily("ring", n_states=config.n_states, slip=(0.0, 0.0)))


def control_subjects(config: ControlSettings) -> dict[str, PolicySubject]:
    """The policies by name: decision-pretrained on random walks, distilled from a source on its own or on random
    walks, reinforced from the start or after decision pretraining.

    Raises ConfigError for an objective that there is not, or that comes twice.
    """
    family = ring(config)
    plain = PolicyConfig(
        n_observations=config.n_states,
        n_actions=N_ACTIONS,
        n_ctx=config.n_steps,
        d_model=config.d_model,
        n_layers=config.n_layers,
        n_heads=config.n_heads,
        d_mlp=2 * config.d_model,
        positions="none",
        tokens="transition",
    )
    n = config.imitation_tasks
    imitation = PolicyTraining(steps=config.imitation_steps, batch_tasks=n, tasks_at_once=DRAWN_TOGETHER * n)
    n = config.reinforcement_tasks
    acting = PolicyTraining("actor-critic", config.reinforcement_steps, batch_tasks=n, tasks_at_once=n, gamma=GAMMA)
    made: dict[str, tuple[PolicyConfig, PolicyTraining, PolicySource | Reinforcement]] = {
        PRETRAINED: (plain, imitation, DecisionPretraining(family, config.n_steps, Random(), GAMMA)),
        **{
            on_own_walks(name): (plain, imitation, Distillation(family, learner, config.n_steps, "law"))
            for name, learner in sources().items()
        },
        **{
            on_random_walks(name): (plain, imitation, Following(family, learner, Random(), config.n_steps))
            for name, learner in sources().items()
        },
        REINFORCED: (replace(plain, critic=True), acting, Reinforcement(family, config.n_steps)),
    }
    once_each("objectives", config.objectives, (*made, GONE_ON))
    subjects = {name: PolicySubject(name, *how, config.seeds, config.out) for name, how in made.items()}
    subjects[GONE_ON] = replace(subjects[REINFORCED], name=GONE_ON, start_from=subjects[PRETRAINED])
    return {name: subjects[name] for name in config.objectives}
