"""The yardstick: a training step in plain torch that no change to the suite can make faster or slower.

An embedding, torch's own LSTM, a (mixture of) softmax with every probability materialised, and torch's SGD, at the
sizes of the cell it stands beside. It is no model of the suite's: a step of the suite divided by it says what the suite
adds, and the machine, which slows both, cancels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Sizes:
    """Of a step: ``length`` x ``batch`` words of ``vocabulary``, ``width`` of the context, ``experts`` of ``size``."""

    vocabulary: int
    width: int
    experts: int
    size: int
    length: int
    batch: int


class _Plain(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.embedding = nn.Embedding(sizes.vocabulary, sizes.width)
        self.recurrence = nn.LSTM(sizes.width, sizes.width)
        self.prior = nn.Linear(sizes.width, sizes.experts)
        self.projection = nn.Linear(sizes.width, sizes.experts * sizes.size)
        self.output = nn.Linear(sizes.size, sizes.vocabulary)

    def forward(self, words: Tensor, targets: Tensor) -> Tensor:
        """Mean nats of ``targets`` [T * B] after ``words`` [T, B]."""
        contexts = self.recurrence(self.embedding(words))[0].flatten(0, 1)
        experts = torch.tanh(self.projection(contexts)).view(-1, self.sizes.experts, self.sizes.size)
        log_q = functional.log_softmax(self.output(experts), -1)
        log_p = torch.logsumexp(log_q + functional.log_softmax(self.prior(contexts), -1).unsqueeze(-1), 1)
        return functional.nll_loss(log_p, targets)


def yardstick(sizes: Sizes) -> Callable[[], None]:
    """The step; each call trains on the same random words. Leaves torch's random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = _Plain(sizes)
        words = torch.randint(sizes.vocabulary, (sizes.length, sizes.batch))
        targets = torch.randint(sizes.vocabulary, (sizes.length * sizes.batch,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        model(words, targets).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.25)
        optimizer.step()

    return step
