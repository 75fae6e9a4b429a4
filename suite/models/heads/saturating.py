"""Output functions that stop growing on one side, the controls of Kanai et al. 2018 beside sigsoftmax.

p is proportional to a positive function f of each logit; the suite works with g = log f. Unlike the rest of the family
they do not increase everywhere: ReLU is flat below 0, the sigmoid all but flat far above.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from suite.models.heads.pointwise import Pointwise
from suite.spec.types import PositiveFloat


class Relu(Pointwise):
    """g(z) = log(relu(z) + eps): the ReLU-based output function of Kanai et al. (2018).

    ``eps`` keeps every probability positive; the gradient of a word is 0 wherever its logit is below 0. The value is
    ours: the paper's has not been read.
    """

    def __init__(self, *, eps: PositiveFloat = 1e-8) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, z: Tensor) -> Tensor:
        """Elementwise g."""
        return torch.log(functional.relu(z) + self.eps)


class Sigmoid(Pointwise):
    """g(z) = log sigmoid(z): the sigmoid-based output function of Kanai et al. (2018), p proportional to sigmoid(z)."""

    def forward(self, z: Tensor) -> Tensor:
        """Elementwise g."""
        return functional.logsigmoid(z)
