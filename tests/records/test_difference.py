"""What is sent to the registry, whatever moment a delivery is cut short at: all of it, and nothing twice."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from suite.records.difference import Held, changes, contradicts, is_delivered
from suite.records.payload import Payload, Point

finite = st.floats(-1e6, 1e6)
values = st.dictionaries(st.sampled_from(["train_ppl", "valid_ppl", "seconds"]), finite, min_size=1)
MARKER = ("suite.record_sha256", "ab" * 32)


def payload(epochs: list[dict[str, float]], metrics: dict[str, float], live: bool = False) -> Payload:
    rows = tuple(
        tuple(Point(f"curve/{name}", value, 1000 * step, step) for name, value in epoch.items())
        for step, epoch in enumerate(epochs, 1)
    )
    status = "RUNNING" if live else "FINISHED"
    return Payload(
        run_key="k",
        name="n",
        status=status,
        live=live,
        start=0,
        end=None if live else 10_000,
        params={"head": "mos"},
        tags={"suite.status": status},
        marker=MARKER,
        rows=rows,
        metrics=metrics,
        dataset=None,
        artifacts={},
    )


EMPTY = Held(run_id="r", status="RUNNING", name="n", params={}, tags={}, metrics={})


def deliver(held: Held, wanted: Payload, at_most: int) -> tuple[Held, list[Point]]:
    """Append the first ``at_most`` points of what is missing, as a registry does."""
    missing = changes(wanted, held)
    sent = [*missing.points, *missing.finals, *missing.corrections][:at_most]
    curves = {(point.key, point.step): point.value for point in sent if point.key.startswith("curve/")}
    latest = {point.key: point.value for point in sent}
    return replace(held, points={**held.points, **curves}, metrics={**held.metrics, **latest}), sent


@given(epochs=st.lists(values, max_size=6), metrics=st.dictionaries(st.sampled_from(["test_ppl", "nll"]), finite),
       cuts=st.lists(st.integers(0, 5), max_size=5))  # fmt: skip
def test_interrupted_deliveries_add_up_to_exactly_one(epochs, metrics, cuts):
    wanted = payload(epochs, metrics)
    held, log = EMPTY, []
    for cut in [*cuts, 10_000]:
        assert not contradicts(wanted, held)
        held, sent = deliver(held, wanted, cut)
        log += sent
    everything = [point for row in wanted.rows for point in row]
    assert [point for point in log if point.key.startswith("curve/")] == everything
    assert held.metrics.keys() >= metrics.keys()
    assert len(log) == len(set(log)) == len(everything) + len(metrics)
    assert not deliver(held, wanted, 10_000)[1]


@given(epochs=st.lists(values, min_size=1, max_size=6), grown=st.integers(0, 6), metrics=st.just({"test_ppl": 9.0}))
def test_a_growing_curve_is_sent_in_order(epochs, grown, metrics):
    part, whole = payload(epochs[:grown], {}, live=True), payload(epochs, metrics)
    held, first = deliver(EMPTY, part, 10_000)
    assert not contradicts(whole, held)
    _, second = deliver(held, whole, 10_000)
    assert [p for p in first + second if p.step] == [point for row in whole.rows for point in row]


def test_only_what_the_model_gives_can_contradict():
    old = payload([{"valid_ppl": 8.0, "seconds": 1.0}], {"test_ppl": 9.0})
    held, _ = deliver(EMPTY, old, 10_000)
    done = replace(held, status="FINISHED", tags={MARKER[0]: MARKER[1]})
    assert is_delivered(old, done)
    assert not contradicts(payload([{"valid_ppl": 8.0, "seconds": 2.0}], {"test_ppl": 9.0}), held)
    assert contradicts(payload([{"valid_ppl": 8.1, "seconds": 1.0}], {"test_ppl": 9.0}), held)
    assert contradicts(payload([{"valid_ppl": 8.0}], {}), held)
    assert contradicts(payload([{"valid_ppl": 8.0}], {"test_ppl": 9.5}), done)
    assert contradicts(payload([], {}, live=True), done)
    assert contradicts(old, replace(held, params={"head": "softmax"}))
    assert not is_delivered(replace(old, marker=(MARKER[0], "cd" * 32)), done)
    assert not is_delivered(replace(old, live=True, status="FINISHED"), done)
