"""A walk along a text that takes the gradient of every segment; all it changes lives in fixed tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from suite.errors import Diverged
from suite.evaluation.perplexity import score
from suite.evaluation.replay import Replayed
from suite.models.language_model import LanguageModel


class Walk:
    """Segments of ``columns`` in order, hidden state carried: score one, then use its gradient.

    The position is a tensor too, so that one recorded :meth:`step` serves every segment of its length.

    Args:
        model: in training mode, without dropout (see :func:`suite.evaluation.modelstate.differentiable`).
        columns: int64 [rows, B] token ids; a segment's targets stand one row later.
        bptt: rows of the longest segment.
        parameters: what gradients are taken by.
        use: called with the gradients of a segment's mean training loss, in the order of ``parameters``.
        scored: add up the targets' nats, too.
    """

    def __init__(
        self,
        model: LanguageModel,
        columns: Tensor,
        bptt: int,
        parameters: Sequence[nn.Parameter],
        use: Callable[[list[Tensor]], None],
        *,
        scored: bool,
    ) -> None:
        self._model = model
        self._columns = columns
        self._bptt = bptt
        self._parameters = list(parameters)
        self._use = use
        self._scored = scored
        self._position = torch.zeros(1, dtype=torch.int64, device=columns.device)
        self._offsets = torch.arange(bptt, device=columns.device)
        self._state = [s.clone() for s in model.encoder.initial_state(columns.shape[1], columns.device)]
        self._nats = torch.zeros((), dtype=torch.float64, device=columns.device)
        self.row = 0  # rows behind; as the position, and known without asking the device

    def advance(self, length: int, full: Replayed) -> None:
        """Take the next segment; one of the full length through ``full``, which must call :meth:`step`."""
        if length == self._bptt:
            full()
        else:
            self.step(length)
        self.row += length

    def step(self, length: int) -> None:
        """Score the ``length`` rows at the position, hand on their gradient, go forward. Never waits for the device."""
        model = self._model
        rows = self._position + self._offsets[:length]
        inputs, targets = self._columns[rows], self._columns[rows + 1]
        encoded = model.encoder(inputs, tuple(self._state))
        loss, nll = model.head.loss(encoded.output, targets)
        with torch.no_grad():
            if self._scored:
                # The loss has log(p + eps) where the head trains so; the score is the true likelihood.
                self._nats += (nll if model.head.eps == 0.0 else self._true(encoded.output, targets)).double().sum()
            gradients = torch.autograd.grad(loss, self._parameters, materialize_grads=True)
            self._use(list(gradients))
            for kept, new in zip(self._state, encoded.state, strict=True):
                kept.copy_(new)
            self._position += length

    def _true(self, contexts: Tensor, targets: Tensor) -> Tensor:
        head = self._model.head
        head.training = False  # of the head alone: nothing beneath it has a mode by now
        try:
            return score(self._model, contexts.flatten(0, 1), targets.flatten())
        finally:
            head.training = True

    def mean_nll(self) -> float:
        """Nats a token so far; waits for the device.

        Raises:
            Diverged: it is not finite.
        """
        mean = self._nats.item() / max(1, self.row * self._columns.shape[1])
        if not math.isfinite(mean):
            raise Diverged(f"the loss is not a finite number within the first {self.row} tokens")
        return mean

    def state_dict(self) -> dict[str, Any]:
        """Everything the next segment depends on; the random state belongs to it, where masks are drawn."""
        device = self._columns.device
        return {
            "row": self.row,
            "state": list(self._state),
            "nats": self._nats.clone(),
            "parameters": [p.detach() for p in self._parameters],
            "random": torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state(),
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        device = self._columns.device
        self.row = int(state["row"])
        self._position.fill_(self.row)
        self._nats.copy_(state["nats"])
        for kept, saved in zip([*self._state, *self._parameters], [*state["state"], *state["parameters"]], strict=True):
            kept.copy_(saved)
        if device.type == "cuda":
            torch.cuda.set_rng_state(state["random"].cpu(), device)
        else:
            torch.set_rng_state(state["random"].cpu())
