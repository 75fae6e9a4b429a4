"""A causal pre-norm transformer, small enough to stand beside the LSTMs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from suite.errors import InputError
from suite.models.dropout import dropout
from suite.models.encoders.base import Encoded, Encoder, State
from suite.spec.types import PositiveInt, Probability

INIT_STD = 0.02
_ROTARY_BASE = 10_000.0


def _rotate(x: Tensor) -> Tensor:
    """Rotary position embedding (Su et al. 2021) on [B, heads, T, size]; any length, nothing learned."""
    length, size = x.shape[-2:]
    exponents = torch.arange(0, size, 2, device=x.device, dtype=torch.float32) / size
    angles = torch.arange(length, device=x.device, dtype=torch.float32)[:, None] * _ROTARY_BASE**-exponents
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.attention_norm = nn.LayerNorm(width)
        self.attention_in = nn.Linear(width, 3 * width, bias=False)
        self.attention_out = nn.Linear(width, width, bias=False)
        self.feedforward_norm = nn.LayerNorm(width)
        self.feedforward_in = nn.Linear(width, feedforward)
        self.feedforward_out = nn.Linear(feedforward, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        qkv = self.attention_in(self.attention_norm(x)).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        drop = self.dropout if self.training else 0.0
        attended = functional.scaled_dot_product_attention(_rotate(q), _rotate(k), v, dropout_p=drop, is_causal=True)
        attended = self.attention_out(attended.transpose(1, 2).reshape(batch, length, width))
        x = x + dropout(attended, self.dropout, self.training)
        hidden = self.feedforward_out(functional.gelu(self.feedforward_in(self.feedforward_norm(x))))
        return x + dropout(hidden, self.dropout, self.training)


class Transformer(Encoder):
    """Causal pre-norm transformer with rotary positions; a token sees the earlier tokens of its own segment only.

    Nothing is carried between segments, so evaluation with a longer ``bptt`` gives it more context.
    """

    def __init__(
        self,
        vocabulary: int,
        contexts: int | None = None,
        *,
        width: PositiveInt = 256,
        layers: PositiveInt = 4,
        attention_heads: PositiveInt = 4,
        feedforward: PositiveInt = 1024,
        tied: bool = True,
        dropout: Probability = 0.1,
    ) -> None:
        super().__init__()
        if width % (2 * attention_heads):
            raise InputError(f"encoder.width {width} is not a multiple of 2 x attention_heads ({2 * attention_heads})")
        self.embedding = nn.Parameter(torch.randn(vocabulary, width) * INIT_STD)
        self.blocks = nn.ModuleList(_Block(width, attention_heads, feedforward, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.dropout = dropout
        self.context_size = width
        self.tied = tied

    @property
    def output_weight(self) -> nn.Parameter | None:
        """The embedding, where it is tied."""
        return self.embedding if self.tied else None

    def forward(self, inputs: Tensor, state: State) -> Encoded:
        """Encode [T, B] token ids; the state is empty."""
        x = functional.embedding(inputs, self.embedding).transpose(0, 1)
        x = dropout(x, self.dropout, self.training)
        with torch.autocast(x.device.type, self.half_dtype, enabled=self.half_dtype is not None):
            for block in self.blocks:
                x = block(x)
        raw = self.norm(x.to(self.embedding.dtype)).transpose(0, 1)
        return Encoded(dropout(raw, self.dropout, self.training), raw, state)
