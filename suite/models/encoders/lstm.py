"""LSTM encoders: AWD-LSTM (Merity et al. 2018) and a plain stack."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from suite.models.dropout import Layout, draw_mask, dropout, locked_dropout, word_dropout_embedding
from suite.models.encoders.base import Encoded, Encoder, State
from suite.models.encoders.recurrence import evaluated_layer, lstm_layer, room
from suite.spec.types import PositiveInt, Probability

INIT_RANGE = 0.1


class _Stack(Encoder):
    """Embedding and a stack of one-layer LSTMs of any sizes; subclasses say where dropout goes."""

    def __init__(self, vocabulary: int, embedding: int, hidden: list[int], tied: bool) -> None:
        super().__init__()
        weight = torch.empty(vocabulary, embedding)
        self.embedding = nn.Parameter(nn.init.uniform_(weight, -INIT_RANGE, INIT_RANGE))
        inputs = [embedding, *hidden[:-1]]
        self.layers = nn.ModuleList(nn.LSTM(i, h) for i, h in zip(inputs, hidden, strict=True))
        self.hidden = list(hidden)
        self.context_size = hidden[-1]
        self.tied = tied

    @property
    def output_weight(self) -> nn.Parameter | None:
        """The embedding, where it is tied."""
        return self.embedding if self.tied else None

    def initial_state(self, batch: int, device: torch.device) -> State:
        """Zero hidden and cell state: h0, c0, h1, c1, ... of [1, B, hidden]; padded where its kernels want it."""
        dtype = self.half_dtype or self.embedding.dtype
        rooms = [room(size, batch, dtype, device) for size in self.hidden for _ in ("h", "c")]
        return tuple(torch.zeros(1, r.batch, r.features, dtype=dtype, device=device) for r in rooms)

    def entrance(self, x: Tensor) -> Layout:
        """How the first layer takes embedded words [T, B, E]: cast and padded."""
        return room(x.shape[2], x.shape[1], self.half_dtype or x.dtype, x.device)

    def recur(self, layer: nn.Module, x: Tensor, h: Tensor, c: Tensor, weight_drop: float = 0.0) -> list[Tensor]:
        """One layer over a segment, its recurrent matrix weight-dropped: y, and the state after it."""
        weights: list[Tensor] = list(layer.parameters())  # input, recurrent, and their biases
        p = weight_drop if self.training else 0.0
        # One mask for the whole segment, on the hidden-to-hidden matrix alone (Merity et al. 2018, section 2).
        mask = draw_mask(weights[1].shape, p, weights[1], torch.uint8) if p > 0.0 else None
        scale = 1.0 / (1.0 - p)
        # Also in evaluation mode where gradients are wanted (dynamic evaluation), which torch's own refuses on a GPU.
        if x.is_cuda and torch.is_grad_enabled():
            return list(lstm_layer(x, h, c, weights, mask, scale, crowded=self.crowded))
        if x.is_cuda and mask is None:
            found = evaluated_layer(x, h, c, weights, self.crowded)
            if found is not None:
                return list(found)
        if mask is not None:
            weights[1] = weights[1] * mask * scale
        weights = [w.to(x.dtype) for w in weights]
        return list(torch.lstm(x, [h, c], weights, True, 1, 0.0, self.training, False, False))


class AwdLstm(_Stack):
    """AWD-LSTM: weight-dropped recurrences, locked dropouts, word dropout, tied embeddings (Merity et al. 2018).

    Defaults are those of the authors' code. Their names: embedding emsize, word_dropout dropoute, input_dropout
    dropouti, hidden_dropout dropouth, output_dropout dropout, weight_drop wdrop.
    """

    def __init__(
        self,
        vocabulary: int,
        contexts: int | None = None,
        *,
        embedding: PositiveInt = 400,
        hidden: list[PositiveInt] = [1150, 1150, 400],  # noqa: B006 - read, never changed
        tied: bool = True,
        word_dropout: Probability = 0.1,
        input_dropout: Probability = 0.65,
        hidden_dropout: Probability = 0.3,
        output_dropout: Probability = 0.4,
        weight_drop: Probability = 0.5,
    ) -> None:
        super().__init__(vocabulary, embedding, hidden, tied)
        self.word_dropout = word_dropout
        self.input_dropout = input_dropout
        self.hidden_dropout = hidden_dropout
        self.output_dropout = output_dropout
        self.weight_drop = weight_drop

    def forward(self, inputs: Tensor, state: State) -> Encoded:
        """Encode [T, B] token ids; state as :meth:`initial_state` lays it out."""
        x = word_dropout_embedding(inputs, self.embedding, self.word_dropout, self.training)
        x = locked_dropout(x, self.input_dropout, self.training, self.entrance(x))
        carried: list[Tensor] = []
        last = len(self.layers) - 1
        for index, layer in enumerate(self.layers):
            x, h, c = self.recur(layer, x, state[2 * index], state[2 * index + 1], self.weight_drop)
            carried += [h, c]
            if index != last:
                x = locked_dropout(x, self.hidden_dropout, self.training)
        raw = x[:, : inputs.shape[1], : self.context_size].to(self.embedding.dtype)
        return Encoded(locked_dropout(raw, self.output_dropout, self.training), raw, tuple(carried))


class Lstm(_Stack):
    """A plain stack of LSTMs with ordinary dropout on the non-recurrent connections (Zaremba et al. 2014)."""

    def __init__(
        self,
        vocabulary: int,
        contexts: int | None = None,
        *,
        embedding: PositiveInt = 200,
        hidden: list[PositiveInt] = [200, 200],  # noqa: B006 - read, never changed
        tied: bool = True,
        dropout: Probability = 0.0,
    ) -> None:
        super().__init__(vocabulary, embedding, hidden, tied)
        self.dropout = dropout

    def forward(self, inputs: Tensor, state: State) -> Encoded:
        """Encode [T, B] token ids; state as :meth:`initial_state` lays it out."""
        x = dropout(functional.embedding(inputs, self.embedding), self.dropout, self.training)
        x = locked_dropout(x, 0.0, self.training, self.entrance(x))
        carried: list[Tensor] = []
        last = len(self.layers) - 1
        for index, layer in enumerate(self.layers):
            x, h, c = self.recur(layer, x, state[2 * index], state[2 * index + 1])
            carried += [h, c]
            if index != last:
                x = dropout(x, self.dropout, self.training)
        raw = x[:, : inputs.shape[1], : self.context_size].to(self.embedding.dtype)
        return Encoded(dropout(raw, self.dropout, self.training), raw, tuple(carried))
