"""The whole step as a CUDA graph, one a sequence length, captured when the length first comes up.

The eager step leaves the GPU waiting for Python most of the time. Its kernels are recorded once and replayed as one
launch; what changes between steps of one length lies on the device: the position in the text, the carried state, the
learning rate's factor, the averages' counts, and the generator of the masks, which every replay advances.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from suite.models.arithmetic import arithmetic
from suite.models.turns import TURNS
from suite.spec.recipe import Sgd
from suite.training.multi_tensor import MultiTensorUpdate
from suite.training.objectives import Work
from suite.training.step import EagerStep


class GraphStep(EagerStep):
    """As :class:`EagerStep`, replayed. Must be built and called on a stream that is not the default one."""

    replayed = True

    capturable = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = {}
        self._pool: Any = None
        self._multi = self._build_update()

    def __call__(self, work: Work, factor: float) -> None:
        """Take the step; ``factor`` scales every learning rate."""
        self.objective.stage(work)
        self._set_factor(factor)
        if work.length not in self._graphs:
            self._graphs[work.length] = self._captured(work.length)
        self._graphs[work.length][0].replay()

    def settle(self) -> None:
        """Bring what the host is told of averages and skipped steps up to date; waits for the device."""
        self._multi.settle()
        self.skipped += int(self._multi.skipped)
        self._multi.skipped.zero_()

    def averages_changed(self) -> None:
        """Capture anew, with the averages that there are now."""
        # All at once: graphs that share a pool must not outlive the last one that holds it.
        self._graphs, self._pool = {}, None
        self._multi = self._build_update()

    def _build_update(self) -> MultiTensorUpdate:
        chosen = self.recipe.optimizer
        rates = [group["base_lr"] for group in self.optimizer.param_groups for _ in group["params"]]
        return MultiTensorUpdate(
            self.parameters,
            rates,
            list(self.averages.active.values()),
            chosen.weight_decay,
            self.recipe.clip,
            self.scale,
            sgd=isinstance(chosen, Sgd),
        )

    def _set_factor(self, factor: float) -> None:
        if isinstance(self.recipe.optimizer, Sgd):
            self._multi.factor.fill_(factor)
            return
        for group in self.optimizer.param_groups:
            group["lr"].fill_(group["base_lr"] * factor)

    def _captured(self, length: int) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        """The graph of a step, and the table of its gradients' addresses, which must live as long."""
        graph = torch.cuda.CUDAGraph()
        if self.generator is not None:
            graph.register_generator_state(self.generator)
        addresses = torch.zeros(len(self.parameters), dtype=torch.int64, device=self.nats.device)
        with arithmetic(self.recipe.precision.recurrence, self.recipe.precision.head):
            self._warm_up(length, addresses)
            with TURNS.alone():
                # What is cached cannot be given back while anything is recorded; packed runs cache much.
                free, total = torch.cuda.mem_get_info()
                if free < total / 4:
                    torch.cuda.empty_cache()
                # What samples memory meanwhile, or waits in a library, is none of this thread's mistakes.
                graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
                try:
                    self.differentiate(length)
                    self._record_update(addresses)
                finally:
                    graph.capture_end()
        self._pool = graph.pool()
        addresses.copy_(self._multi.addresses(_gradients(self.parameters)))
        # The graph writes them; to Python they are free memory of its pool, for the next graph to share.
        self.optimizer.zero_grad(set_to_none=True)
        return graph, addresses

    def _warm_up(self, length: int, addresses: Tensor) -> None:
        """Run everything once outside the capture, where libraries may still load kernels, and leave no trace."""
        kept = [self.nats, *self.objective.carried()]
        before = [tensor.clone() for tensor in kept]
        generator = self.generator.get_state() if self.generator is not None else None
        self.differentiate(length)
        if not self._graphs:
            self._rehearse_update(addresses)
        torch.cuda.current_stream().synchronize()
        self.optimizer.zero_grad(set_to_none=True)
        _restore(kept, before)
        if self.generator is not None and generator is not None:
            self.generator.set_state(generator)

    def _record_update(self, addresses: Tensor) -> None:
        if not isinstance(self.recipe.optimizer, Sgd):
            if self.recipe.clip is not None:
                nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip)
            self.optimizer.step()
            if not self.averages.active:
                return
        self._multi(addresses)

    def _rehearse_update(self, addresses: Tensor) -> None:
        """Run the update once, for its kernels and its optimiser's state to be there, and undo it."""
        fresh = not self.optimizer.state
        averages = [value for average in self.averages.active.values() for value in average.values]
        kept = [*self.parameters, *self._state(), *averages, *self._multi.changing]
        before = [tensor.detach().clone() for tensor in kept]
        addresses.copy_(self._multi.addresses(_gradients(self.parameters)))
        self._record_update(addresses)
        _restore(kept, before)
        if fresh:
            for tensor in self._state():
                tensor.zero_()

    def _state(self) -> list[Tensor]:
        return [v for state in self.optimizer.state.values() for v in state.values() if isinstance(v, Tensor)]


@torch.no_grad()
def _restore(tensors: list[Tensor], values: list[Tensor]) -> None:
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)


def _gradients(parameters: list[nn.Parameter]) -> list[Tensor]:
    found = [p.grad for p in parameters]
    assert all(g is not None for g in found), "every trained parameter takes part in the loss"
    return [g for g in found if g is not None]
