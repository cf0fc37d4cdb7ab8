"""Distillation: a linear transformer trained to imitate a named learner's predictions, so that its algorithm is known.

Every step reads fresh tasks and minimises, with Adam and a cosine schedule, the student's squared error in units of its
teacher's power,

    sum over tasks of E (f - a)^2 / sum over tasks of E a^2,   f the student, a the teacher, E over weighted queries.

(A mean of the tasks' own ratios would be led by the tasks on which the teacher predicts almost nothing.) Only the
moments of the contexts enter (models.collapsed), so linear attention alone can be a student.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from algorithms.fit import one_thread, square_mean
from algorithms.learner import Learner
from models.collapsed import layer_maps, moments
from models.config import ConfigError, LinearTransformerConfig
from models.linear import LinearTransformer, layout_of, xavier_normal
from tasks.layout import Prompt, PromptSource
from tasks.progress import progress
from tasks.streams import normals

STEPS_PER_CHUNK = 16  # their prompts are drawn at once: chunk i of a seed's stream is part of what a seed means
LARGEST_GRADIENT = 1.0  # norm, per seed: predictions are a high power of the weights, so the loss has cliffs


@one_thread()
def distill(
    learner: Learner,
    config: LinearTransformerConfig,
    source: PromptSource,
    seeds: Sequence[int],
    steps: int,
    *,
    learning_rate: float = 3e-2,
    tasks_per_step: int = 16,
    context_length: int = 30,
) -> LinearTransformer:
    """Trains one student per seed; the learner's constants [seeds, 1, ...] may differ from seed to seed.

    Raises ConfigError for a network whose attention is not linear.
    """
    if config.activation != "linear":
        raise ConfigError(f"activation is {config.activation!r}; distillation trains linear attention: 'linear'")
    layout = layout_of(config)
    shape = (2, config.n_weight_layers, len(config.masks), config.width, config.width)
    student = LinearTransformer(config, *xavier_normal(config, normals(seeds, "distil/init", 0, *shape)))
    optimizer = torch.optim.Adam(student.parameters(), lr=learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    with progress(total=steps, unit="step", desc="distilling") as bar:
        for chunk in range(math.ceil(steps / STEPS_PER_CHUNK)):
            n_tasks = STEPS_PER_CHUNK * tasks_per_step
            drawn = source.fresh_prompt(seeds, "distil", chunk, n_tasks, context_length, layout)
            G, answers = moments(drawn, config), learner.predict(drawn)
            for step in range(min(STEPS_PER_CHUNK, steps - chunk * STEPS_PER_CHUNK)):
                tasks = slice(step * tasks_per_step, (step + 1) * tasks_per_step)
                optimizer.zero_grad()
                relative_error(student, drawn.select(tasks), G[:, tasks], answers[:, tasks]).sum().backward()
                _clip(student)
                optimizer.step()
                schedule.step()
                bar.update()
    return student


def relative_error(
    student: LinearTransformer,
    prompt: Prompt,
    G: Float[Tensor, "#seeds tasks heads width width"],
    answers: Float[Tensor, "#seeds tasks queries 1"],
) -> Float[Tensor, " seeds"]:
    """sum E (f - a)^2 / sum E a^2 over tasks, from the contexts' moments G."""
    config = student.config
    final = layer_maps(student.P, student.Q, G, config.n_layers)[-1]
    predictions = config.readout_sign * prompt.query_tokens @ final[..., -1, :, None]
    return square_mean(predictions - answers, prompt).sum(-1) / square_mean(answers, prompt).sum(-1)


def _clip(student: LinearTransformer) -> None:
    """Seeds share no parameter, so each has a gradient norm of its own."""
    gradients = [weight.grad for weight in (student.P, student.Q) if weight.grad is not None]
    norm = sum((gradient.flatten(1).square().sum(1) for gradient in gradients), torch.zeros(student.n_seeds)).sqrt()
    for gradient in gradients:
        gradient *= (LARGEST_GRADIENT / norm.clamp(min=LARGEST_GRADIENT))[:, None, None, None, None]
