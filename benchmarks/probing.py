"""Speed and memory of the layerwise probe, against the scikit-learn loops that it replaces.

    python benchmarks/probing.py                a table
    python benchmarks/probing.py --threads 2    with two threads, whose waiting counts as processor time
    python benchmarks/probing.py --json         the numbers as JSON

All sides run in one process on the same float64 data, and their answers are checked to be equal. RidgeCV holds out rows
where we hold out tasks, so its answers are compared at one penalty; it is timed with one and with all.
"""

import argparse
import json
import math
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.model_selection import GridSearchCV, GroupKFold
from threadpoolctl import threadpool_limits
from torch import Tensor

from probes.linear import probe_batches, probe_layers
from probes.ridge import RidgeFitter, assign_folds

LAYERS, FEATURES, TARGETS, ROWS_PER_TASK, FOLDS = 12, 64, 16, 50, 5
ALPHAS = (1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3, 1e4)


@dataclass(frozen=True)
class Stream:
    """Batches of activations, targets and groups, each a function of its number: nothing is kept."""

    rows: int
    batch: int = 2500

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        mixing = torch.randn(FEATURES, TARGETS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        for start in range(0, self.rows, self.batch):
            generator = torch.Generator().manual_seed(1 + start)
            x = 1 + torch.randn(LAYERS, self.batch, FEATURES, generator=generator, dtype=torch.float64)
            noise = 8 * torch.randn(self.batch, TARGETS, generator=generator, dtype=torch.float64)
            yield x, x[0] @ mixing + noise, torch.arange(start, start + self.batch) // ROWS_PER_TASK


def clock(work: Callable[[], Any], repeats: int = 1) -> tuple[Any, float, float]:
    """(result, processor seconds, wall seconds) of the fastest repeat."""
    result, best = None, (math.inf, math.inf)
    for _ in range(repeats):
        cpu, wall = time.process_time(), time.perf_counter()
        result = work()
        best = min(best, (time.process_time() - cpu, time.perf_counter() - wall))
    return result, *best


def peak_memory(rows: int) -> float:
    """Peak memory in MiB of a process that probes a stream of so many rows."""
    probe_batches(Stream(rows), torch.full((rows // ROWS_PER_TASK,), ROWS_PER_TASK), alphas=ALPHAS)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def fit(x: Tensor, y: Tensor, groups: Tensor, alphas: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As GridSearchCV: scores [folds, layers, alphas, targets], one penalty a layer, weights at that penalty."""
    fitter = RidgeFitter(FOLDS).update(x, y, assign_folds(groups.bincount(), FOLDS)[groups])
    scores = torch.stack([fitter.score(fitter.solve(alphas, {fold}), fold) for fold in range(FOLDS)])
    best = scores.mean((0, -1)).argmax(-1)
    weights, _ = fitter.coefficients(fitter.solve(alphas)[torch.arange(len(best)), :, best])
    return scores, alphas[best], weights


def measure(rows: int) -> list[tuple[str, float, str]]:
    # Before any data are here, since a child process may count its parent's memory.
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        memory = {n: pool.map(peak_memory, [n], chunksize=1)[0] for n in (rows, 4 * rows)}

    batches = list(zip(*Stream(rows), strict=True))
    x, y, groups = torch.cat(batches[0], 1), torch.cat(batches[1]), torch.cat(batches[2])
    X, Y, G = x.numpy(), y.numpy(), groups.numpy()
    alphas, one = torch.tensor(ALPHAS, dtype=torch.float64), torch.ones(1, dtype=torch.float64)

    square = torch.randn(1500, 1500, dtype=torch.float64)
    _, gemm, _ = clock(lambda: square @ square, repeats=5)
    # Each product of two columns must be summed once, and for the intervals each prediction made once.
    moments = LAYERS * rows * FEATURES * (FEATURES + 1 + 2 * TARGETS) / 2
    floor = moments * gemm / 1500**3
    floor_probe = (moments + LAYERS * rows * FEATURES * TARGETS) * gemm / 1500**3

    def one_penalty() -> Tensor:
        fitter = RidgeFitter(1).update(x, y, torch.zeros_like(groups))
        return fitter.coefficients(fitter.solve(one).squeeze(-2))[0]

    fixed, fixed_cpu, fixed_wall = clock(one_penalty, repeats=3)
    (scores, penalty, weights), fit_cpu, fit_wall = clock(lambda: fit(x, y, groups, alphas), repeats=3)
    _, probe_cpu, _ = clock(lambda: probe_layers(x, y, groups, alphas=ALPHAS), repeats=3)
    x32, y32 = x.float(), y.float()
    _, probe32_cpu, _ = clock(lambda: probe_layers(x32, y32, groups, alphas=ALPHAS), repeats=3)

    ridge, ridge_cpu, ridge_wall = clock(lambda: [RidgeCV(alphas=[1.0]).fit(layer, Y) for layer in X])
    _, ridges_cpu, ridges_wall = clock(lambda: [RidgeCV(alphas=ALPHAS).fit(layer, Y) for layer in X])
    grids, grid_cpu, grid_wall = clock(
        lambda: [GridSearchCV(Ridge(), {"alpha": ALPHAS}, cv=GroupKFold(FOLDS)).fit(layer, Y, groups=G) for layer in X]
    )
    ridge_gap = max(np.abs(w.T.numpy() - r.coef_).max() for w, r in zip(fixed, ridge, strict=True))
    grid_gap = max(np.abs(w.T.numpy() - g.best_estimator_.coef_).max() for w, g in zip(weights, grids, strict=True))
    mean_scores = scores.mean((0, -1)).numpy()
    score_gap = max(np.abs(s - g.cv_results_["mean_test_score"]).max() for s, g in zip(mean_scores, grids, strict=True))
    assert max(ridge_gap, grid_gap, score_gap) < 1e-8
    assert penalty.tolist() == [grid.best_params_["alpha"] for grid in grids]

    return [
        ("RidgeCV, one penalty: loop over layers", ridge_cpu, "s"),
        ("RidgeCV, one penalty: RidgeFitter", fixed_cpu, "s"),
        ("RidgeCV, one penalty: ratio of processor time", ridge_cpu / fixed_cpu, "x"),
        ("RidgeCV, one penalty: ratio of wall time", ridge_wall / fixed_wall, "x"),
        ("RidgeCV, one penalty: RidgeFitter over its floor", fixed_cpu / floor, "x"),
        ("RidgeCV, one penalty: largest difference of weights", ridge_gap, ""),
        ("RidgeCV, all penalties: loop over layers", ridges_cpu, "s"),
        ("RidgeCV, all penalties: ratio of processor time", ridges_cpu / fit_cpu, "x"),
        ("RidgeCV, all penalties: ratio of wall time", ridges_wall / fit_wall, "x"),
        ("GridSearchCV: loop over layers", grid_cpu, "s"),
        ("GridSearchCV: RidgeFitter", fit_cpu, "s"),
        ("GridSearchCV: ratio of processor time", grid_cpu / fit_cpu, "x"),
        ("GridSearchCV: ratio of wall time", grid_wall / fit_wall, "x"),
        ("GridSearchCV: RidgeFitter over its floor", fit_cpu / floor, "x"),
        ("GridSearchCV: largest difference of weights", grid_gap, ""),
        ("GridSearchCV: largest difference of scores", score_gap, ""),
        ("probe_layers, nested, with errors by task", probe_cpu, "s"),
        ("probe_layers over its floor", probe_cpu / floor_probe, "x"),
        ("probe_layers from float32 activations", probe32_cpu, "s"),
        (f"probe_batches: peak memory at {rows} rows", memory[rows], "MiB"),
        (f"probe_batches: peak memory at {4 * rows} rows", memory[4 * rows], "MiB"),
        ("gemm peak in multiply-adds", 1e-9 * 1500**3 / gemm, "G/s"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000, help="a multiple of 2500")
    parser.add_argument("--threads", type=int, default=1, help="for every library")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with threadpool_limits(args.threads):
        results = measure(args.rows)
    if args.json:
        print(json.dumps([{"measured": name, "value": value, "unit": unit} for name, value, unit in results]))
        return
    print(f"{LAYERS} layers x {args.rows} rows x {FEATURES} features x {TARGETS} targets, {len(ALPHAS)} penalties")
    for name, value, unit in results:
        print(f"{name:54} {value:10.3g} {unit}")


if __name__ == "__main__":
    main()
