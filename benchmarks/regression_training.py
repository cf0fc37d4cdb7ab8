"""How fast is regression training? Steps per second against the paper's own procedure, at equal gradients.

    python benchmarks/regression_training.py [--seconds 20] [--prompts 20000] [--json]

Both sides train three layers of the full family on the setting of arXiv 2306.00297 (d = 5, n = 20, 20000 prompts a
step, drawn anew every 100 steps, AdamW, gradients clipped by matrix) in one run, on one thread each: the procedure as
published, which multiplies out n x n attention for every prompt, and the trainer's step. First of all their gradients
are compared on the same weights and prompts.
"""

from __future__ import annotations

import argparse
import json
import time

import torch
from torch import Tensor

from models.config import LinearTransformerConfig, RegressionTraining
from models.linear import LinearTransformer, layout_of
from models.regression_objective import Examples, batch_last, initial_weights, residuals
from models.train_regression import _State
from tasks.layout import Prompt
from tasks.regression import AHN_SPECTRUM, RegressionFamily, covariance_matrix

D, N, LAYERS, RESAMPLE = 5, 20, 3, 100
SIGMA = covariance_matrix(AHN_SPECTRUM, 0)
FAMILY = RegressionFamily(D, SIGMA, prior="inverse-covariance")
CONFIG = LinearTransformerConfig(LAYERS, False, D, tokens="labelled", covariance=SIGMA)


def published_loss(blocks: Tensor, Z: Tensor, y: Tensor) -> Tensor:
    """E ([Z_L]_{query, label} + y)^2 of prompts Z [prompts, n + 1, d + 1] for blocks [layers, 2, d, d] of P and Q."""
    is_context = Z.new_ones(Z.shape[1]).index_fill(0, torch.tensor([Z.shape[1] - 1]), 0.0)
    for P, Q in blocks:
        value = torch.block_diag(P, Z.new_ones(1, 1))
        score = torch.block_diag(Q, Z.new_zeros(1, 1))
        attention = torch.einsum("bni, ij, bmj -> bnm", Z, score, Z)
        values = torch.einsum("ij, bnj -> bni", value, Z * is_context[:, None])
        Z = Z + torch.einsum("bnm, bni -> bmi", attention, values) / (Z.shape[1] - 1)
    return (Z[:, -1, -1] + y).square().mean()


def published_procedure(prompts: int, seconds: float) -> float:
    """Steps per second of the training loop of section 5, its drawing of prompts included."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    root = torch.linalg.cholesky(torch.tensor(SIGMA))
    blocks = torch.nn.Parameter(0.02 * torch.randn(LAYERS, 2, D, D, generator=generator))
    optimizer = torch.optim.AdamW([blocks], lr=0.02, betas=(0.99, 0.9), weight_decay=0.0)
    steps, started, Z, y = 0, time.perf_counter(), torch.empty(0), torch.empty(0)
    while time.perf_counter() - started < seconds:
        if steps % RESAMPLE == 0:
            x = torch.randn(prompts, N + 1, D, generator=generator) @ root.mT
            w = torch.linalg.solve(root.mT, torch.randn(prompts, D, 1, generator=generator))
            labels = (x @ w)[..., 0]
            Z, y = torch.cat([x, labels.index_fill(1, torch.tensor([N]), 0.0)[..., None]], -1), labels[:, -1]
        optimizer.zero_grad()
        published_loss(blocks, Z, y).backward()
        assert blocks.grad is not None
        norm = blocks.grad.norm(dim=(-2, -1), keepdim=True)
        blocks.grad.mul_((0.01 / norm).clamp(max=1.0))
        optimizer.step()
        steps += 1
    return steps / (time.perf_counter() - started)


def trainer(seeds: int, prompts: int, seconds: float, *, compiled: bool) -> dict[str, float]:
    """Seeds x steps per second of the trainer, drawing of prompts included, compilation apart."""
    training = RegressionTraining(prompts=prompts, initial_std=0.02)
    weights = initial_weights(CONFIG, training, range(seeds))
    state = _State(LinearTransformer(CONFIG, weights["P"], weights["Q"]), training, compiled)

    def draw(index: int) -> list[Examples]:
        return [Examples.read(FAMILY.training_prompt(range(seeds), index, prompts, N, state.model.layout))]

    before = time.perf_counter()
    state.step(draw(0))
    warm, batch, steps, started = time.perf_counter() - before, draw(0), 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        if steps % RESAMPLE == 0:
            batch = draw(steps // RESAMPLE)
        state.step(batch)
        steps += 1
    return {"rate": seeds * steps / (time.perf_counter() - started), "first": warm}


def gradient_difference(prompts: int = 500) -> float:
    """Largest difference between both sides' gradients, relative to the largest entry; float64."""
    weights = {name: w.double() for name, w in initial_weights(CONFIG, RegressionTraining(), [0]).items()}
    P, Q = (w.requires_grad_() for w in weights.values())
    prompt: Prompt = FAMILY.training_prompt([0], 0, prompts, N, layout_of(CONFIG)).to(torch.float64)
    residuals(batch_last(P), batch_last(Q), Examples.read(prompt), CONFIG).square().mean().backward()
    assert P.grad is not None
    assert Q.grad is not None
    ours = torch.stack([P.grad, Q.grad], 2)[0, :, :, 0, :D, :D]
    blocks = torch.stack([P, Q], 2)[0, :, :, 0, :D, :D].detach().requires_grad_()
    published_loss(blocks, prompt.tokens[0], prompt.answers[0, :, 0, 0]).backward()
    assert blocks.grad is not None
    return ((ours - blocks.grad).abs().max() / blocks.grad.abs().max()).item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="ensemble size")
    parser.add_argument("--prompts", type=int, default=20_000, help="prompts a step and seed")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long to run each side")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    torch.set_num_threads(1)  # as the trainer does
    difference = gradient_difference()
    if not difference < 1e-5:
        raise SystemExit(f"the gradients differ by {difference:.2g}, relative: the two sides do not train the same")
    published = published_procedure(args.prompts, args.seconds)
    eager, compiled = (trainer(args.seeds, args.prompts, args.seconds, compiled=mode) for mode in (False, True))
    report = {
        "seeds": args.seeds,
        "prompts": args.prompts,
        "gradient_difference": difference,
        "published_procedure_steps_per_second": published,
        "eager_seed_steps_per_second": eager["rate"],
        "compiled_seed_steps_per_second": compiled["rate"],
        "compile_seconds": compiled["first"],
        "ratio_eager": eager["rate"] / published,
        "ratio_compiled": compiled["rate"] / published,
    }
    if args.json:
        print(json.dumps(report))
    else:
        for name, number in report.items():
            print(f"{name.replace('_', ' '):>40}  {number:.4g}")


if __name__ == "__main__":
    main()
