"""What GD++ is in the end: the iteration of Newton and Schulz for S^-1/2, beside Newton's for S^-1.

Along an eigenvector of S with eigenvalue s, a layer of GD++ with A_l = a_l I multiplies the error of w by 1 - u_l,
where u_0 = a_0 s and u_{l+1} = (a_{l+1} / a_l) u_l (1 - b_l u_l)^2 (see algorithms.optima). Where all u are near 1,
a_{l+1} / a_l = (1 - b)^-2 keeps 1 where it is, and b = 1/3, so a ratio of 9/4, squares what u deviates from it. The
best constants of deep networks tend to these; the covariates X_l = sqrt(a_l) x_l are then the iterates of Newton and
Schulz, X <- 3/2 X - X X^T X / 2n, which end where X^T X / n = I.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

REWRITE = 1 / 3
GROWTH = 9 / 4


def newton_schulz_steps(largest: float, n_steps: int) -> tuple[Float[Tensor, " steps"], Float[Tensor, " steps"]]:
    """Constants of GD++ that need to know no smallest eigenvalue: a_l = (9/4)^l / largest and b_l = 1/3.

    u goes to 9/4 u (1 - u / 3)^2: from anywhere in (0, 3) to at most 1, and then up to 1, by 9/4 at a time while it is
    small and quadratically in the end. Up to `largest` no error changes its sign.
    """
    steps = GROWTH ** torch.arange(n_steps, dtype=torch.float64) / largest
    return steps, torch.full_like(steps, REWRITE)
