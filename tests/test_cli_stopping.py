"""Stopping a command by a time limit or a signal and going on, and commands that cannot begin."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import torch
from tiny_tasks import DATASET, ONE, TINY, Desk, one_record, outcome

from suite import verbs
from suite.records.store import Store


def test_a_time_limit_stops_with_a_checkpoint_and_the_next_call_finishes(desk: Desk, finished: Path) -> None:
    code, out, err = desk.run(*ONE, "--max-minutes", "0.0001")
    assert code == 130
    assert "  interrupted: --max-minutes 0.0001 is over\n" in out
    assert err == "stopped: --max-minutes 0.0001 is over. The same command goes on from the last checkpoint.\n"
    record = one_record(desk.results)
    assert (record.status, record.metrics) == ("interrupted", {})
    assert (Store(desk.results).run_dir(record.run_key) / "checkpoint.pt").exists()
    assert desk.plan(*ONE)[0][5] == "interrupted"
    code, out, err = desk.run(*ONE)
    assert (code, err) == (0, "")
    assert "resumed (attempt 2)" in out
    assert outcome(one_record(desk.results)) == outcome(one_record(finished))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_at_the_next_step_and_the_run_goes_on_from_there(desk: Desk, number: signal.Signals) -> None:
    desk.write("tasks/tiny.yaml", TINY.replace("epochs: 2", "epochs: 80"))
    run = ("run", *ONE, "--device", "cpu", "--threads", "1", "--no-mlflow")
    process = desk.process(*run)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("  epoch 3/80 "):
            break
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    reason = "interrupted" if number == signal.SIGINT else "asked to end"
    assert process.returncode == 130
    assert err == f"stopped: {reason}. The same command goes on from the last checkpoint.\n"
    assert out.endswith(f"  interrupted: {reason}\n")
    stopped = one_record(desk.results)
    assert (stopped.status, stopped.message) == ("interrupted", reason)
    assert 3 <= len(stopped.curves) < 80
    if number == signal.SIGTERM:
        return  # both leave the same checkpoint
    code, out, _ = desk.suite(*run)
    assert code == 0
    assert f"  epoch {len(stopped.curves) + 1}/80 " in out, "it goes on in the epoch it was stopped in"
    assert "  epoch 1/80 " not in out
    resumed = one_record(desk.results)
    assert desk.suite(*run, "--rerun")[0] == 0
    assert outcome(resumed) == outcome(one_record(desk.results))


def test_a_request_to_end_before_anything_is_under_way(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def begins(*_: object) -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
        return 0

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(verbs, "call", begins)
    assert desk.suite("list") == (
        130,
        "",
        "stopped: asked to end. The same command goes on from the last checkpoint.\n",
    )
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_second_interrupt_stops_at_once(desk: Desk) -> None:
    desk.write(
        "slow.py",
        "import time\nfrom suite import register\nfrom suite.models.heads.pointwise import Pointwise\n\n\n"
        '@register("pointwise", "slow")\nclass Slow(Pointwise):\n    """Takes its time."""\n\n'
        '    def forward(self, z):\n        """Elementwise."""\n        print("step", flush=True)\n'
        "        time.sleep(60)\n        return z\n",
    )
    desk.write(
        "tasks/tiny.yaml",
        "plugins: [../slow.py]\n" + TINY.replace("heads:\n", "heads:\n  - {name: softmax, pointwise: slow}\n"),
    )
    process = desk.process("run", "tiny", "--only", "head=slow", "--seed", "1", "--device", "cpu", "--no-mlflow")
    assert process.stdout is not None
    assert any(line == "step\n" for line in process.stdout)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None, "the first waits for the step to end"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "interrupted.\n")
    assert Store(desk.results).load() == []


def test_a_run_without_its_corpus(desk: Desk) -> None:
    desk.write("tasks/tiny.yaml", TINY.replace(DATASET, "ptb"))
    (desk.root / "corpora").mkdir()
    cache = desk.root.parent / "cache" / "softmax-bottleneck-suite" / "corpora"
    code, _, err = desk.run("tiny", "--offline", "--data-dir", "corpora")
    assert code == 2
    assert err == (
        f"error: Penn Treebank was not found in corpora, {cache}. Run 'suite data fetch ptb' where there is a network, "
        "or give --data-dir (or SUITE_DATA) a folder that holds one of: "
        + err.partition("a folder that holds one of: ")[2]
    )
    assert "ptb.{train,valid,test}.txt" in err
    assert err.count("\n") == 1
    assert Store(desk.results).load() == []


def test_verify_names_what_is_missing_and_what_is_wrong(desk: Desk) -> None:
    code, out, err = desk.suite("data", "verify", "--offline")
    assert (code, out) == (2, "")
    assert [line.split(" was not found")[0] for line in err.splitlines()] == [
        "error: Penn Treebank",
        "error: WikiText-2",
    ]
    for split in ("train", "valid", "test"):
        desk.write(f"data/ptb.{split}.txt", "made up \n" * 5)
    code, out, err = desk.suite("data", "verify", "ptb", "--offline")
    assert (code, err) == (2, "")
    header, _, *rows = out.splitlines()
    assert header.split() == ["corpus", "split", "bytes", "tokens", "sha256", "verdict"]
    assert [row.split()[:4] for row in rows] == [["ptb", split, "45", "15"] for split in ("train", "valid", "test")]


def test_cuda_where_there_is_none(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert desk.suite("run", "tiny", "--device", "cuda", "--no-mlflow") == (
        2,
        "",
        "error: --device cuda: torch sees no GPU here; use --device cpu, or a CUDA build of torch with a driver\n",
    )
