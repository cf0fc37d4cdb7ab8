"""The end of a training, on one fixed batch: Levenberg-Marquardt for all members at once, or torch's L-BFGS for each.

Both change weights in place that share memory with the ensemble's, `masks` says where, and no member's path depends on
the others beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from models.regression_objective import Examples, Weight, batch_last

# P, Q [layers, width, width, seeds, prompts or 1] and examples -> residuals [seeds, prompts]
Residuals = Callable[..., Tensor]
Masks = Sequence[Bool[Tensor, "width width"]]


class Polish(Protocol):
    def step(self, chunks: Sequence[Examples]) -> Float[Tensor, " seeds"]:
        """Improves the weights; returns the loss of those that it started from."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """What a resume needs besides the weights, by name."""
        ...

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Puts back what `tensors` named."""
        ...


class GaussNewton:
    """Levenberg-Marquardt: with residuals r of the prompts and J their gradients, one iteration moves the weights by

        -(H + damping diag H)^-1 g,   H = E[J^T J],   g = E[J^T r]

    under the best of a few dampings, the same ones at every iteration: so there is nothing to remember. No scaling of
    weights or covariates changes the undamped move: badly conditioned covariates cost no more iterations than others.
    """

    DAMPINGS: ClassVar = (1e-6, 1e-3, 0.03, 1.0, 100.0)

    def __init__(self, weights: Sequence[Weight], masks: Masks, residuals: Residuals) -> None:
        self.weights, self.residuals = [batch_last(weight) for weight in weights], residuals
        self.free = torch.stack([m.expand(w.shape[:3]) for m, w in zip(masks, self.weights, strict=True)]).flatten()

    def step(self, chunks: Sequence[Examples]) -> Float[Tensor, " seeds"]:
        loss, gradient, curvature = self._moments(chunks)
        scale = curvature.diagonal(dim1=-2, dim2=-1)
        scale = torch.diag_embed(torch.where(scale > 0, scale, 1.0))
        best, move = loss, torch.zeros_like(gradient)
        for damping in self.DAMPINGS:
            candidate = -torch.linalg.solve_ex(curvature + damping * scale, gradient)[0]
            found = self._loss(self._moved(candidate), chunks)
            better = found < best  # false for NaN
            best, move = torch.where(better, found, best), torch.where(better[:, None], candidate, move)
        for weight, moved in zip(self.weights, self._moved(move), strict=True):
            weight.copy_(moved)
        return loss.to(self.weights[0])

    def tensors(self) -> dict[str, Tensor]:
        return {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        pass

    def _moments(self, chunks: Sequence[Examples]) -> tuple[Tensor, Tensor, Tensor]:
        """The loss [seeds], g [seeds, free] and H [seeds, free, free]; sums over chunks in float64."""
        found = []
        for chunk in chunks:
            r, J = self._linearise(chunk)
            found.append((r.square().sum(-1), (J @ r[..., None])[..., 0], J @ J.mT))
        n = sum(chunk.answers.shape[-1] for chunk in chunks)
        loss, gradient, curvature = (torch.stack(parts).double().sum(0) / n for parts in zip(*found, strict=True))
        return loss, gradient, curvature

    def _linearise(self, chunk: Examples) -> tuple[Tensor, Tensor]:
        """Residuals [seeds, prompts] and their Jacobian [seeds, free, prompts], from a copy of the weights a prompt."""
        n = chunk.answers.shape[-1]
        copies = [weight.expand(*weight.shape[:-1], n).clone().requires_grad_() for weight in self.weights]
        r = self.residuals(*copies, chunk)
        slopes = torch.stack(torch.autograd.grad(r.sum(), copies)).flatten(0, 3)[self.free]
        return r.detach(), slopes.transpose(0, 1)

    def _loss(self, weights: Sequence[Tensor], chunks: Sequence[Examples]) -> Float[Tensor, " seeds"]:
        with torch.no_grad():
            squares = [self.residuals(*weights, chunk).square() for chunk in chunks]
        return torch.cat(squares, -1).double().mean(-1)

    def _moved(self, move: Float[Tensor, "seeds free"]) -> list[Tensor]:
        moves = move.new_zeros(len(self.free), len(move))
        moves[self.free] = move.mT
        parts = moves.to(self.weights[0]).unflatten(0, (2, *self.weights[0].shape[:3]))[..., None]
        return [weight + part for weight, part in zip(self.weights, parts, strict=True)]


class LBFGS:
    """torch's L-BFGS with a strong Wolfe line search; a step is ITERATIONS of it, fewer where nothing is left to gain.

    Curvature estimates and line searches belong to one problem, so every member has its own optimiser; an evaluation
    takes a whole batch, and looping over members costs nothing.
    """

    ITERATIONS: ClassVar = 10
    LISTS: ClassVar = ("old_dirs", "old_stps", "ro")
    OTHERS: ClassVar = ("d", "prev_flat_grad", "H_diag", "func_evals", "n_iter", "t", "prev_loss")

    def __init__(self, weights: Sequence[Weight], masks: Masks, residuals: Residuals) -> None:
        self.residuals = residuals
        self.members = [[torch.nn.Parameter(w[i : i + 1]) for w in weights] for i in range(len(weights[0]))]
        for member in self.members:
            for weight, mask in zip(member, masks, strict=True):
                weight.register_hook(lambda gradient, mask=mask: gradient * mask)
        self.optimizers = [
            torch.optim.LBFGS(
                member,
                max_iter=self.ITERATIONS,
                max_eval=25 * self.ITERATIONS,
                tolerance_grad=1e-9,
                tolerance_change=1e-12,
                line_search_fn="strong_wolfe",
            )
            for member in self.members
        ]

    def step(self, chunks: Sequence[Examples]) -> Float[Tensor, " seeds"]:
        own = zip(*(chunk.members() for chunk in chunks), strict=True)  # the chunks of each member
        members = zip(self.members, self.optimizers, own, strict=True)
        return torch.cat([self._step(*member) for member in members])

    def _step(self, weights: Sequence[Tensor], optimizer: torch.optim.LBFGS, chunks: Sequence[Examples]) -> Tensor:
        def logarithm() -> Tensor:  # L-BFGS's thresholds are absolute, and losses differ by many orders
            optimizer.zero_grad()
            p, q = (batch_last(weight) for weight in weights)
            value = torch.cat([self.residuals(p, q, chunk).square() for chunk in chunks], -1).mean(-1).log()
            value.sum().backward()
            return value

        return optimizer.step(logarithm).detach().exp()

    def tensors(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for i, optimizer in enumerate(self.optimizers):
            state = optimizer.state[self.members[i][0]]
            found |= {f"{i}.{name}": torch.stack(state[name]) for name in self.LISTS if state.get(name)}
            found |= {f"{i}.{name}": torch.as_tensor(state[name]) for name in self.OTHERS if name in state}
        return found

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        for i, optimizer in enumerate(self.optimizers):
            state, prefix = optimizer.state[self.members[i][0]], f"{i}."
            own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
            state.update({name: x.item() if x.ndim == 0 else x for name, x in own.items() if name not in self.LISTS})
            state.update({name: list(own[name]) if name in own else [] for name in self.LISTS})


POLISHES: dict[str, type[GaussNewton] | type[LBFGS]] = {"gauss-newton": GaussNewton, "l-bfgs": LBFGS}
