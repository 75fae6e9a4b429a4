"""Dynamic evaluation (Krause et al. 2017): the model goes on learning from the text it is scored on.

Gradient statistics of the training set set each weight's own rate of learning and of decay back to where it began.
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from suite.data.batching import LengthSampler, batchify, segments
from suite.errors import Diverged, InputError
from suite.evaluation.modelstate import differentiable, own_random_stream, weights_restored
from suite.evaluation.replay import Replayed
from suite.evaluation.walk import Walk
from suite.evaluation.watch import Watch, text_of
from suite.models.language_model import LanguageModel
from suite.spec.recipe import Arithmetic, Recipe
from suite.spec.types import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from suite.stages import Measurements, RunContext

State = dict[str, Any]


class DynamicEvaluation:
    """Score a text a few words at a time, and learn from each piece once it is scored (Krause et al. 2017).

    Over the segments of the training set, g the gradient of the mean loss of a segment, without dropout::

        MS = sqrt(sum g^2)            decay rate = min(MS / sum over tensors of mean(MS), 1 / lamb)

    Then, segment by segment of the text, with W0 the weights as they were trained::

        W <- W + lamb * decay rate * (W0 - W) - lr * g / (MS + epsilon)

    Every split begins with W0, and the model is left with W0. Defaults are the MoS authors' (their dynamiceval.py with
    ``--lamb 0.075``); their WikiText-2 command has epsilon 0.002 and lamb 0.02. Unlike theirs, the split's last token
    is scored also where it stands alone, and the reported likelihood is without ``log(p + eps)``.

    Args:
        bptt: words a segment, of the statistics and of the evaluation.
        statistics_batch: columns the training set is cut into for the statistics.
        statistics_steps: use this many segments of it only; all when absent.
        lr: learning rate.
        epsilon: added to MS, where the gradients were small.
        lamb: strength of the decay.
        mean: MS = sqrt(mean g^2), their ``--ms``, instead of sqrt(sum g^2).
        decay: what MS is divided by: the sum of the tensors' means, as in the code, or the mean over all weights, as in
            the paper.
        weight_drop_leak: leave the recurrent weight drop on, as the official code under PyTorch 0.4 does unawares.
        parameters: which weights adapt.
        splits: what to score, in this order.
        seed: of the masks of ``weight_drop_leak``.
    """

    name = "dynamic-evaluation"

    def __init__(
        self,
        *,
        bptt: PositiveInt = 5,
        statistics_batch: PositiveInt = 100,
        statistics_steps: PositiveInt | None = None,
        lr: PositiveFloat = 0.002,
        epsilon: PositiveFloat = 0.001,
        lamb: NonNegativeFloat = 0.075,
        mean: bool = False,
        decay: Literal["sum-of-means", "mean"] = "sum-of-means",
        weight_drop_leak: bool = False,
        parameters: Literal["all", "encoder", "head"] = "all",
        splits: list[Literal["valid", "test"]] = ["valid", "test"],  # noqa: B006 - read, never changed
        seed: NonNegativeInt = 0,
    ) -> None:
        if not splits:
            raise InputError(f"stage {self.name}: splits is empty; name valid, test or both")
        self._bptt = bptt
        self._statistics_batch = statistics_batch
        self._statistics_steps = statistics_steps
        self._lr = lr
        self._epsilon = epsilon
        self._lamb = lamb
        self._mean = mean
        self._decay = decay
        self._leak = weight_drop_leak
        self._which = parameters
        self._splits = splits
        self._seed = seed

    def run(self, context: RunContext, state: State | None) -> Measurements:
        """See :class:`suite.stages.Stage`."""
        text = text_of(context, self.name)
        model = context.model
        parameters = _adapting(model, self._which)
        watch = Watch(context)
        if self._leak and not hasattr(model.encoder, "weight_drop"):
            raise InputError(f"stage {self.name}: weight_drop_leak: the encoder has no weight drop to leave on")
        keep = ("weight_drop",) if self._leak else ()
        with ExitStack() as stack:
            stack.enter_context(differentiable(model, _arithmetic(context.recipe), keep))
            before = stack.enter_context(weights_restored(parameters))
            stack.enter_context(own_random_stream(self._seed, context.device))
            # What one walk hands to the next; ``walk`` is the state of the one at hand.
            done: State = state or {"split": "train", "scores": {}}
            if done["split"] == "train":
                squares, steps = self._statistics(context, parameters, watch, done)
                done = {"split": self._splits[0], "squares": squares, "steps": steps, "scores": {}}
            rates = self._rates([s.to(context.device) for s in done["squares"]], int(done["steps"]))
            for split in self._splits[self._splits.index(done["split"]) :]:
                done["split"] = split
                columns = _column(text.streams[split], context.device)
                done["scores"][split] = self._adapt(context, columns, parameters, before, rates, watch, done)
                done.pop("walk", None)
        scores: Measurements = done["scores"]
        return scores

    def _statistics(
        self, context: RunContext, parameters: list[nn.Parameter], watch: Watch, done: State
    ) -> tuple[list[Tensor], int]:
        """Sum of squared gradients by weight over the training set, and of how many segments."""
        tokens = text_of(context, self.name).streams["train"]
        columns = torch.from_numpy(batchify(tokens, self._statistics_batch)).to(context.device).long()
        squares = [torch.zeros_like(p, requires_grad=False) for p in parameters]

        def add(gradients: list[Tensor]) -> None:
            torch._foreach_addcmul_(squares, gradients, gradients)

        walk = Walk(context.model, columns, self._bptt, parameters, add, scored=False)
        rows, steps = columns.shape[0], 0
        if "walk" in done:
            walk.load_state_dict(done["walk"])
            torch._foreach_copy_(squares, [s.to(context.device) for s in done["squares"]])
            steps = int(done["steps"])
        most = self._statistics_steps or math.inf
        full = Replayed(lambda: walk.step(self._bptt), context.device)
        todo = segments(rows, LengthSampler(self._bptt), walk.row)
        ended = False
        while not ended:
            with context.clock("evaluate"):
                ended = True
                for segment in todo if steps < most else ():
                    walk.advance(segment.length, full)
                    steps += 1
                    watch.show(lambda: f"gradient statistics {walk.row / rows:4.0%}")
                    if steps >= most:
                        break
                    if watch.due():
                        ended = False
                        break
            if not ended:
                watch.pause({**done, "walk": walk.state_dict(), "squares": squares, "steps": steps})
        return squares, steps

    def _rates(self, squares: list[Tensor], steps: int) -> tuple[list[Tensor], list[Tensor]]:
        """Of each weight: the share of its way back to W0 it takes in a step, and its learning rate."""
        scale = [(s / steps if self._mean else s).sqrt() for s in squares]
        sums = torch.stack([s.double().sum() for s in scale])
        sizes = sums.new_tensor([s.numel() for s in scale])
        norm = (sums / sizes).sum() if self._decay == "sum-of-means" else sums.sum() / sizes.sum()
        value = float(norm)
        if not (math.isfinite(value) and value > 0.0):
            raise Diverged("the gradient statistics of the training set are not finite and positive numbers")
        # lamb * min(decay rate, 1 / lamb)
        pull = [(s * (self._lamb / value)).clamp_(max=1.0) for s in scale]
        return pull, [self._lr / (s + self._epsilon) for s in scale]

    def _adapt(
        self,
        context: RunContext,
        columns: Tensor,
        parameters: list[nn.Parameter],
        before: list[Tensor],
        rates: tuple[list[Tensor], list[Tensor]],
        watch: Watch,
        done: State,
    ) -> dict[str, float]:
        """Score one split, learning from every segment after it is scored."""
        pull, rate = rates
        weights: list[Tensor] = list(parameters)

        def learn(gradients: list[Tensor]) -> None:
            torch._foreach_lerp_(weights, before, pull)
            torch._foreach_addcmul_(weights, gradients, rate, value=-1.0)

        with torch.no_grad():
            torch._foreach_copy_(weights, before)
        walk = Walk(context.model, columns, self._bptt, parameters, learn, scored=True)
        if "walk" in done:
            walk.load_state_dict(done["walk"])
        tokens = columns.shape[0] - 1
        full = Replayed(lambda: walk.step(self._bptt), context.device)
        while walk.row < tokens:
            with context.clock("evaluate"):
                while walk.row < tokens:
                    walk.advance(min(self._bptt, tokens - walk.row), full)
                    watch.show(lambda: self._line(done["split"], walk, tokens))
                    if walk.row < tokens and watch.due():
                        break
            if walk.row < tokens:
                watch.pause({**done, "walk": walk.state_dict()})
        nll = walk.mean_nll()
        return {"nll": nll, "ppl": math.exp(min(nll, 700.0)), "tokens": float(tokens)}

    def _line(self, split: str, walk: Walk, tokens: int) -> str:
        nll = walk.mean_nll()
        return f"{self.name} {split} {walk.row / tokens:4.0%}  loss {nll:.3f}  ppl {math.exp(min(nll, 700.0)):.2f}"


def _arithmetic(recipe: Recipe) -> Arithmetic:
    """What evaluations are computed in, by the rule of :class:`suite.spec.recipe.Precision`."""
    precision = recipe.precision
    return precision.evaluation or ("tf32" if "tf32" in (precision.recurrence, precision.head) else "float32")


def _adapting(model: LanguageModel, which: str) -> list[nn.Parameter]:
    """The trainable parameters of a part of the model, each once; a tied output matrix belongs to both parts."""
    part = {"all": model, "encoder": model.encoder, "head": model.head}[which]
    parameters = [p for p in part.parameters() if p.requires_grad]
    if not parameters:
        raise InputError(f"stage {DynamicEvaluation.name}: parameters: {which} has nothing that can be trained")
    return parameters


def _column(stream: Any, device: torch.device) -> Tensor:
    """A stream as one column [tokens, 1] on the device."""
    return torch.from_numpy(np.array(stream)).to(device).long().unsqueeze(1)
