"""The continuous neural cache (Grave et al. 2017): words seen lately are likelier where the context is alike."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from suite.errors import Diverged, InputError
from suite.evaluation.modelstate import restored_modes
from suite.evaluation.perplexity import score
from suite.evaluation.watch import Watch, text_of
from suite.models.language_model import LanguageModel
from suite.spec.types import NonNegativeFloat, PositiveInt, Probability
from suite.stages import Measurements, RunContext

# Scores held at a time, [rows, window + rows].
_SCORES_BYTES = {"cpu": 8 * 1024 * 1024, "cuda": 256 * 1024 * 1024}


class Cache:
    """Mix the model with a cache of the last words, p = (1 - weight) p_model + weight p_cache (Grave et al. 2017).

    p_cache(x) is the share of the last ``window`` words i that are x, each weighed by softmax_i(theta h_t . h_i), h_i
    the context that word i followed. Scored is every word that has one before it.
    Defaults are those of the AWD-LSTM authors for Penn Treebank (their pointer.py, without their habit of dividing
    the loss by one word too many); for WikiText-2 theirs are theta 0.662, weight 0.1279, window 3785, bptt 2000.

    Args:
        theta: sharpness of the cache.
        weight: lambda, the cache's share.
        window: how many words back it reaches.
        bptt: words encoded at a time; no matter for a recurrent encoder, whose state is carried.
        full_window: leave the model alone until the cache is full, as the official code does, instead of using the
            cache from the second word on.
        splits: what to score, in this order.
    """

    name = "cache"

    def __init__(
        self,
        *,
        theta: NonNegativeFloat = 1.0,
        weight: Probability = 0.1,
        window: PositiveInt = 500,
        bptt: PositiveInt = 2000,
        full_window: bool = False,
        splits: list[Literal["valid", "test"]] = ["valid", "test"],  # noqa: B006 - read, never changed
    ) -> None:
        if not splits:
            raise InputError(f"stage {self.name}: splits is empty; name valid, test or both")
        self._theta = theta
        self._weight = weight
        self._window = window
        self._bptt = bptt
        self._full_window = full_window
        self._splits = splits

    def run(self, context: RunContext, state: dict[str, Any] | None) -> Measurements:
        """See :class:`suite.stages.Stage`."""
        text = text_of(context, self.name)
        watch = Watch(context)
        done = state or {"split": self._splits[0], "scores": {}}
        with restored_modes(context.model):
            for split in self._splits[self._splits.index(done["split"]) :]:
                done["split"] = split
                done["scores"][split] = self._score(context, text.streams[split], watch, done)
                done.pop("at", None)
        scores: Measurements = done["scores"]
        return scores

    def _score(
        self, context: RunContext, stream: npt.NDArray[np.int32], watch: Watch, done: dict[str, Any]
    ) -> dict[str, float]:
        model, device = context.model, context.device
        words = torch.from_numpy(np.array(stream)).to(device).long()
        total = torch.zeros((), dtype=torch.float64, device=device)
        row, hidden = 0, model.encoder.initial_state(1, device)
        memory = Memory(model.head.weight.new_zeros(0, model.encoder.context_size), words[:0])
        if "at" in done:
            at = done["at"]
            row, hidden = int(at["row"]), tuple(s.to(device) for s in at["state"])
            total.copy_(at["nats"])
            memory = Memory(at["contexts"].to(device), at["words"].to(device))
        pairs = len(words) - 1
        while row < pairs:
            with context.clock("evaluate"):
                while row < pairs:
                    part = slice(row, min(row + self._bptt, pairs))
                    nll, hidden, memory = self._segment(model, words[part], words[part.start + 1 :], hidden, memory)
                    total += nll.sum()
                    row = part.stop
                    watch.show(lambda: f"{self.name} {done['split']} {row / pairs:4.0%}")  # noqa: B023 - shown at once
                    if row < pairs and watch.due():
                        break
            if row < pairs:
                at = {"row": row, "state": list(hidden), "nats": total.clone(), **memory._asdict()}
                watch.pause({**done, "at": at})
        mean = total.item() / pairs
        if not math.isfinite(mean):
            raise Diverged(f"the loss with the cache is not a finite number on {done['split']}")
        return {"nll": mean, "ppl": math.exp(min(mean, 700.0)), "tokens": float(pairs)}

    @torch.no_grad()
    def _segment(
        self, model: LanguageModel, inputs: Tensor, following: Tensor, hidden: tuple[Tensor, ...], memory: Memory
    ) -> tuple[Tensor, tuple[Tensor, ...], Memory]:
        """Nats [T] of the words after ``inputs`` [T], the state and the memory after them."""
        model.eval()
        encoded = model.encoder(inputs.unsqueeze(1), hidden)
        contexts, targets = encoded.output.squeeze(1), following[: len(inputs)]
        nll = score(model, contexts, targets)
        mixed = cache_nll(
            nll, contexts, targets, memory, self._window, self._theta, self._weight, full_window=self._full_window
        )
        kept = Memory(
            torch.cat((memory.contexts, contexts))[-self._window :], torch.cat((memory.words, targets))[-self._window :]
        )
        return mixed, encoded.state, kept


class Memory(NamedTuple):
    """``contexts`` [M, H] of the last M words, and the ``words`` [M] that followed them."""

    contexts: Tensor
    words: Tensor


def cache_nll(
    nll: Tensor,
    contexts: Tensor,
    targets: Tensor,
    memory: Memory,
    window: int,
    theta: float,
    weight: float,
    *,
    full_window: bool = False,
) -> Tensor:
    """Nats [T], float64, of ``targets`` [T] under the mixture of model and cache.

    Args:
        nll: [T], the model's own nats of the targets.
        contexts: [T, H], what the targets follow.
        targets: [T].
        memory: at most ``window`` contexts and words from before.
        window: how many words back the cache reaches.
        theta: factor on the dot products.
        weight: the cache's share.
        full_window: only where ``window`` words are there.
    """
    keys, words = torch.cat((memory.contexts, contexts)), torch.cat((memory.words, targets))
    before, rows = memory.words.shape[0], targets.shape[0]
    log_model = -nll.double()
    budget = _SCORES_BYTES.get(contexts.device.type, _SCORES_BYTES["cpu"]) // contexts.element_size()
    # As tall as the band is wide, or less: taller blocks would mostly compute what the band masks.
    step = max(1, min(window, budget // (2 * window)))
    mixed = torch.empty_like(log_model)
    for start in range(0, rows, step):
        part = slice(start, min(start + step, rows))
        at = torch.arange(part.start, part.stop, device=contexts.device).unsqueeze(1) + before
        first = max(0, before + start - window)
        behind = at - torch.arange(first, before + part.stop, device=contexts.device)  # how far back each key lies
        band = (behind >= 1) & (behind <= window)
        scores = theta * (contexts[part] @ keys[first : before + part.stop].t())
        scores = scores.double().masked_fill(~band, -math.inf)
        hits = band & (words[first : before + part.stop] == targets[part].unsqueeze(1))
        # log sum over hits - log sum over the band; no hit gives log 0.
        log_cache = torch.logsumexp(scores.masked_fill(~hits, -math.inf), -1) - torch.logsumexp(scores, -1)
        usable = at.squeeze(1) >= (window if full_window else 1)
        with_cache = torch.logaddexp(log_model[part] + _log(1.0 - weight), log_cache + _log(weight))
        mixed[part] = torch.where(usable, with_cache, log_model[part])
    return -mixed


def _log(x: float) -> float:
    return math.log(x) if x > 0.0 else -math.inf
