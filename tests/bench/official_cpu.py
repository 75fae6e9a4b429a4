"""The eager training step on a CPU beside one that works as the official AWD-LSTM-MoS code does: ``make bench-cpu``.

:class:`Peer` is a re-implementation of how that code (github.com/zihangdai/mos, the authors' code of Yang et al. 2018)
takes a step: the recurrent matrix of an nn.LSTM replaced by a dropped copy at every call, N x K x V logits and
softmaxes that all exist, log(p + 1e-8), a hidden state detached by hand, gradients clipped by their norm,
torch.optim.SGD or ASGD parameter by parameter, and a garbage collection a step. Both models start from the same
weights; without dropout they must give the same loss and the same gradients, which is checked before anything is
timed. The steps alternate in one process, over the same text and the same random lengths. Memory is the peak of
processes that take one side's steps alone, above what they held before the first. The garbage collection is timed
apart: what it takes grows with the modules a process has loaded. Writes results/benchmarks/cpu.json.

    python tests/bench/official_cpu.py [--threads N] [--steps N] [--repeats N]
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor, nn
from torch.nn import functional

from suite.data.base import TextData
from suite.measurement.environment import environment
from suite.models.encoders.lstm import AwdLstm
from suite.models.heads.head import MixtureOfSoftmaxes
from suite.models.language_model import LanguageModel
from suite.spec.recipe import Recipe
from suite.training.averages import Averages
from suite.training.objectives import NextWord, Work
from suite.training.step import EagerStep

OUT = Path("results/benchmarks/cpu.json")
CPU = torch.device("cpu")
BATCH, BPTT, LR, CLIP, DECAY = 12, 35, 20.0, 0.25, 1.2e-6
ALPHA, BETA = 2.0, 1.0
DROPOUTS = {"word": 0.1, "input": 0.4, "hidden": 0.225, "output": 0.4, "weight": 0.5, "latent": 0.29}
NO_DROPOUTS = dict.fromkeys(DROPOUTS, 0.0)


class Size(NamedTuple):
    words: int
    embedding: int
    hidden: list[int]
    experts: int


SIZES = {
    "10,000 words, 5 experts": Size(10_000, 100, [200, 200, 120], 5),
    "1,000 words, 3 experts": Size(1_000, 50, [100, 100, 60], 3),
}


class DroppedLstm(nn.Module):
    """An nn.LSTM of one layer that is handed a newly dropped recurrent matrix at every call."""

    def __init__(self, inputs: int, hidden: int, p: float) -> None:
        super().__init__()
        self.inner = nn.LSTM(inputs, hidden)
        self.kept = nn.Parameter(self.inner.weight_hh_l0.detach().clone())
        self.p = p
        del self.inner.weight_hh_l0

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        self.inner.weight_hh_l0 = functional.dropout(self.kept, self.p, self.training)
        y, after = self.inner(x, state)
        return y, after


def locked(x: Tensor, p: float, training: bool) -> Tensor:
    """One mask for all time steps, scaled when it is drawn."""
    if p == 0.0 or not training:
        return x
    mask = torch.empty(1, x.shape[1], x.shape[2]).bernoulli_(1 - p).div_(1 - p)
    return mask.expand_as(x) * x


class Peer(nn.Module):
    """The official model; its weights are copies of another's."""

    def __init__(self, size: Size, drop: dict[str, float], model: LanguageModel) -> None:
        super().__init__()
        self.size, self.drop = size, drop
        self.embedding = nn.Embedding(size.words, size.embedding)
        ins = [size.embedding, *size.hidden[:-1]]
        self.layers = nn.ModuleList(DroppedLstm(i, h, drop["weight"]) for i, h in zip(ins, size.hidden, strict=True))
        self.prior = nn.Linear(size.hidden[-1], size.experts, bias=False)
        self.latent = nn.Linear(size.hidden[-1], size.experts * size.embedding)
        self.decoder = nn.Linear(size.embedding, size.words)
        self.decoder.weight = self.embedding.weight
        with torch.no_grad():
            for mine, other in self.paired(model):
                mine.copy_(other)

    def paired(self, model: LanguageModel) -> list[tuple[nn.Parameter, nn.Parameter]]:
        """Each parameter beside the one of ``model`` that plays its part."""
        head: Any = model.head
        encoder: Any = model.encoder
        pairs = [(self.embedding.weight, encoder.embedding), (self.decoder.bias, head.bias)]
        pairs += [(self.prior.weight, head.prior.weight)]
        pairs += [(self.latent.weight, head.projection.weight), (self.latent.bias, head.projection.bias)]
        for mine, other in zip(self.layers, encoder.layers, strict=True):
            inner = mine.inner
            weights = [inner.weight_ih_l0, mine.kept, inner.bias_ih_l0, inner.bias_hh_l0]
            pairs += list(zip(weights, other.parameters(), strict=True))
        return pairs

    def start(self) -> list[tuple[Tensor, Tensor]]:
        return [(torch.zeros(1, BATCH, h), torch.zeros(1, BATCH, h)) for h in self.size.hidden]

    def forward(
        self, words: Tensor, state: list[tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]], Tensor, Tensor]:
        """Log-probabilities [T, B, V], the state after, and the last layer's output before and after its dropout."""
        size, drop, training = self.size, self.drop, self.training
        table = self.embedding.weight
        if training and drop["word"]:
            kept = torch.empty(size.words, 1).bernoulli_(1 - drop["word"])
            table = kept.expand_as(table) / (1 - drop["word"]) * table
        x = locked(functional.embedding(words, table), drop["input"], training)
        carried = []
        for index, layer in enumerate(self.layers):
            x, after = layer(x, state[index])
            carried.append(after)
            if index < len(self.layers) - 1:
                x = locked(x, drop["hidden"], training)
        raw, x = x, locked(x, drop["output"], training)
        latent = locked(torch.tanh(self.latent(x)), drop["latent"], training)
        logits = self.decoder(latent.view(-1, size.embedding))
        prior = torch.softmax(self.prior(x).view(-1, size.experts), -1)
        each = torch.softmax(logits, -1).view(-1, size.experts, size.words)
        p = (each * prior.unsqueeze(2).expand_as(each)).sum(1)
        return torch.log(p + 1e-8).view(*words.shape, size.words), carried, raw, x


class PeerStep:
    """The official loop's step."""

    def __init__(self, model: Peer, columns: Tensor, averaged: bool) -> None:
        self.model, self.columns = model.train(), columns
        self.state = model.start()
        self.optimizer: torch.optim.Optimizer
        if averaged:
            self.optimizer = torch.optim.ASGD(
                model.parameters(), lr=LR, lambd=0.0, t0=0, weight_decay=DECAY, foreach=False
            )
        else:
            self.optimizer = torch.optim.SGD(model.parameters(), lr=LR, weight_decay=DECAY, foreach=False)
        self.total = torch.zeros(())

    def differentiate(self, work: Work) -> Tensor:
        window = self.columns[work.start : work.start + work.length + 1]
        words, targets = window[:-1], window[1:].reshape(-1)
        self.optimizer.zero_grad()
        state = [(h.detach(), c.detach()) for h, c in self.state]
        log_p, self.state, raw, dropped = self.model(words, state)
        nats = functional.nll_loss(log_p.view(-1, log_p.shape[2]), targets)
        loss = nats + ALPHA * dropped.pow(2).mean() + BETA * (raw[1:] - raw[:-1]).pow(2).mean()
        self.total += nats.detach()
        loss.backward()
        return nats.detach()

    def __call__(self, work: Work) -> None:
        group = self.optimizer.param_groups[0]
        group["lr"] = LR * work.lr_scale
        self.differentiate(work)
        nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.optimizer.step()
        group["lr"] = LR


class Ours:
    """The suite's eager step, as the training loop calls it on a CPU."""

    def __init__(self, model: LanguageModel, objective: NextWord, recipe: Recipe) -> None:
        self.model, self.objective = model.train(), objective
        averages = Averages(list(model.parameters()), recipe)
        averages.begin_epoch(1)
        self.step = EagerStep(model, objective, recipe, averages, torch.zeros((), dtype=torch.float64), None)
        objective.begin_epoch()
        objective.prepare(model)

    def __call__(self, work: Work) -> None:
        self.step(work, work.lr_scale)
        self.step.nats.item()  # the loop looks at it every step


def pair(size: Size, averaged: bool, drop: dict[str, float]) -> tuple[Ours, PeerStep]:
    """Both sides with the same weights and the same text."""
    torch.manual_seed(1)
    encoder = AwdLstm(
        size.words,
        embedding=size.embedding,
        hidden=size.hidden,
        word_dropout=drop["word"],
        input_dropout=drop["input"],
        hidden_dropout=drop["hidden"],
        output_dropout=drop["output"],
        weight_drop=drop["weight"],
    )
    head = MixtureOfSoftmaxes(
        size.hidden[-1],
        size.words,
        encoder.output_weight,
        experts=size.experts,
        latent_dropout=drop["latent"],
        eps=1e-8,
    )
    model = LanguageModel(encoder, head)
    # Words as rare as a text's: the r-th with probability proportional to 1 / r.
    chances = 1.0 / np.arange(1, size.words + 1)
    stream = np.random.default_rng(1).choice(size.words, BATCH * 2000, p=chances / chances.sum()).astype(np.int32)
    recipe = Recipe.model_validate(
        {
            "batch_size": BATCH,
            "bptt": BPTT,
            "random_length": {"max_excess": 40},
            "optimizer": {"name": "sgd", "lr": LR, "weight_decay": DECAY},
            "averaging": {"trigger": "epoch", "epoch": 1} if averaged else None,
            "activation_regularization": ALPHA,
            "temporal_regularization": BETA,
            "clip": CLIP,
        }
    )
    objective = NextWord(TextData({"train": stream, "valid": stream, "test": stream}, size.words, {}), recipe, 1, CPU)
    ours = Ours(model, objective, recipe)
    columns = torch.from_numpy(stream).view(BATCH, -1).t().contiguous().long()
    return ours, PeerStep(Peer(size, drop, model), columns, averaged)


def next_work(objective: NextWord) -> Work:
    work = objective.next()
    if work is None:
        objective.begin_epoch()
        work = objective.next()
    assert work is not None
    return work


def check(size: Size) -> None:
    """Without dropout both sides give the same nats and the same gradients.

    Raises:
        AssertionError: they do not; a comparison of their times would say nothing.
    """
    ours, peer = pair(size, False, NO_DROPOUTS)
    work = next_work(ours.objective)
    nats = peer.differentiate(work)
    ours.objective.stage(work)
    ours.step.differentiate(work.length)
    torch.testing.assert_close(ours.step.nats.float() / work.items, nats, rtol=1e-5, atol=0)
    for theirs, mine in peer.model.paired(ours.model):
        assert theirs.grad is not None
        assert mine.grad is not None
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-3, atol=1e-6)


def timed(call: Any, *arguments: Any) -> float:
    began = time.perf_counter()
    call(*arguments)
    return 1e3 * (time.perf_counter() - began)


def measure(size: Size, averaged: bool, steps: int) -> dict[str, float]:
    """Median milliseconds a step of both sides, of the peer's garbage collection, and the median ratio."""
    ours, peer = pair(size, averaged, DROPOUTS)
    found: list[tuple[float, float]] = []
    collections = []
    for index in range(steps + 3):
        work = next_work(ours.objective)
        # Each side goes first every other time.
        if index % 2:
            mine, theirs = timed(ours, work), timed(peer, work)
        else:
            theirs, mine = timed(peer, work), timed(ours, work)
        found.append((mine, theirs))
        if index % 10 == 0:
            collections.append(timed(gc.collect))
    found = found[3:]  # the first ones find their memory
    mine, theirs = (statistics.median(column) for column in zip(*found, strict=True))
    return {
        "ours_ms": round(mine, 2),
        "official_ms": round(theirs, 2),
        "official_gc_ms": round(statistics.median(collections), 2),
        "ratio": round(statistics.median(a / b for a, b in found), 3),
    }


def peak(size: Size, averaged: bool, side: str, steps: int = 6) -> float:
    """MiB that one side's steps add to the process's peak; run in a process of its own."""
    ours, peer = pair(size, averaged, DROPOUTS)
    works = [next_work(ours.objective) for _ in range(steps)]
    before = _high_water_kib()
    for work in works:
        (ours if side == "ours" else peer)(work)
    return (_high_water_kib() - before) / 1024


def _high_water_kib() -> int:
    # getrusage's figure starts at what the parent process held.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


def peaks(case: str, averaged: bool) -> dict[str, int]:
    """MiB above the models and the text, by side."""
    found = {}
    for side in ("ours", "official"):
        command = [sys.executable, __file__, "--peak", case, side, "asgd" if averaged else "sgd"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[f"{side}_mib"] = round(float(done.stdout))
    return found


def main() -> int:
    """Measure every size with and without averaging."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.peak:
        case, side, optimizer = options.peak
        print(peak(SIZES[case], optimizer == "asgd", side))
        return 0
    load = os.getloadavg()[0]
    rows: list[dict[str, Any]] = []
    for case, size in SIZES.items():
        check(size)
        for averaged in (False, True):
            runs = [measure(size, averaged, options.steps) for _ in range(options.repeats)]
            middle = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
            ratios = [run["ratio"] for run in runs]
            rows.append(
                {"case": case, "optimizer": "asgd" if averaged else "sgd", **middle, "ratios": ratios}
                | peaks(case, averaged)
            )
    where = environment(CPU, None)
    content = {
        "command": "python tests/bench/official_cpu.py",
        "device": where.device,
        "torch": torch.__version__,
        "threads": options.threads,
        "load_before": round(load, 2),
        "batch": BATCH,
        "bptt": BPTT,
        "steps": options.steps,
        "rows": rows,
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"{options.threads} threads, medians of {options.repeats} x {options.steps} steps; ratio: ours / official\n")
    print(tabulate(rows, headers="keys"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
