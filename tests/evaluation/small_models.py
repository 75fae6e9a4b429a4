"""Models small enough to be scored word by word in a loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from suite.models.encoders.lstm import Lstm
from suite.models.encoders.table import Table
from suite.models.heads.head import Head, MixtureOfSoftmaxes, Softmax
from suite.models.language_model import LanguageModel

VOCABULARY = 11
HIDDEN = 5


def text_model(
    head: type[Head] = MixtureOfSoftmaxes, vocabulary: int = VOCABULARY, seed: int = 0, **options: Any
) -> LanguageModel:
    """An LSTM with an untied head; weights wide enough that contexts and their order matter."""
    torch.manual_seed(seed)
    encoder = Lstm(vocabulary, embedding=4, hidden=[HIDDEN], tied=False)
    model = LanguageModel(encoder, head(HIDDEN, vocabulary, None, **options))
    return _widened(model)


def table_model(contexts: int, words: int, head: type[Head] = Softmax, **options: Any) -> LanguageModel:
    torch.manual_seed(1)
    return _widened(LanguageModel(Table(words, contexts, dimension=3), head(3, words, None, **options)))


def _widened(model: LanguageModel) -> LanguageModel:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    return model


def stream(tokens: int, vocabulary: int = VOCABULARY, seed: int = 0) -> npt.NDArray[np.int32]:
    return np.random.default_rng(seed).integers(0, vocabulary, tokens).astype(np.int32)
