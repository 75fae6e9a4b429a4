"""Figures: what is drawn of which records, and the same bytes for the same numbers."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from records_factory import make_record

from suite.errors import InputError
from suite.records.published import Paper, Published, Value
from suite.records.reading import spec_key
from suite.records.record import Record
from suite.report.descriptions import DESCRIPTION
from suite.report.figures import Sources, draw_all
from suite.report.grouping import group
from suite.report.leaderboard import build
from suite.report.plot_costs import front, quality_against_cost
from suite.report.plot_curves import by_precision, over_published, series
from suite.report.plot_experts import by_experts
from suite.report.plot_forest import forest
from suite.report.plot_functions import functions
from suite.report.plot_heads import head_costs
from suite.report.plot_spectra import spectra, thresholds
from suite.report.plot_synthetic import synthetic
from suite.report.plotting import MARK, line_look, log_ticks, look, png
from suite.report.published_curves import PublishedCurve, load_curves

LOG = PublishedCurve(
    "log", "a published log", "ptb", "awd-lstm", ["mos-*"], ["nt-asgd"], {e: 60 + 200 / e for e in range(1, 13)}, 8
)


FLOAT16 = {"precision": {"recurrence": "float16", "head": "float32"}}


def curve(epochs: int = 12, start: int = 8, factor: float = 1.01) -> list[dict[str, float]]:
    points = []
    for epoch in range(1, epochs + 1):
        raw = factor * (60 + 200 / epoch)
        point = {
            "epoch": float(epoch),
            "averaged": float(epoch >= start + 1),
            "valid_ppl": raw,
            "valid_ppl_raw": raw + 5,
        }
        if epoch >= start:
            point["valid_ppl@8"] = raw - 1
        points.append(point)
    return points


def precisions() -> list[Record]:
    return [
        make_record(curves=curve(factor=factor), recipe={"precision": {"recurrence": kind, "head": "float32"}})
        for kind, factor in (("float32", 1.0), ("float16", 1.002))
    ]


def categorical(words: int, size: int, head: str, kl: float, modes: float, seed: int = 1) -> Record:
    record = make_record(
        dataset="categorical",
        encoder="table",
        head=head,
        seed=seed,
        protocol="categorical",
        dataset_options={"contexts": 1000, "words": words, "concentration": 0.01},
        metrics={"train": {"test": {"kl": kl, "mode_match": modes}}},
    )
    spec = {**record.spec, "encoder": {"name": "table", "dimension": size}}
    return record.model_copy(update={"spec": spec, "run_key": spec_key(spec)})


def grid() -> list[Record]:
    return [
        categorical(words, size, head, kl / size, min(100.0, 10 * size / kl), seed)
        for words in (100, 1000)
        for size in (4, 8)
        for head, kl in (("softmax", 1.0), ("plif", 0.72))
        for seed in (1, 2)
    ]


def spectral() -> list[Record]:
    values = [(index, 1.0 / index**2) for index in (1, 2, 4, 8, 16, 32)]
    return [
        make_record(head=head).model_copy(update={"spectra": {"rank test": values}}) for head in ("softmax", "mos-15")
    ]


def costly() -> list[Record]:
    return [
        make_record(head=head, seed=seed, test=test + seed / 10, costs={"seconds_per_epoch": seconds})
        for head, test, seconds in (("softmax", 60.0, 2.0), ("mos-15", 58.0, 3.4))
        for seed in (1, 2)
    ]


def mixtures() -> list[Record]:
    found = []
    for head, experts, rank in (
        ("mos", 1, 40.0),
        ("mos", 3, 9000.0),
        ("moc", 1, 40.0),
        ("moc", 3, 40.0),
        ("mos", 9, 1.0),
    ):
        for seed in (1, 2) if experts < 9 else (1,):
            # Nine experts with another recipe are no third point of the line.
            record = make_record(
                head=f"{head}-{experts}",
                seed=seed,
                metrics={"train": {"test": {"ppl": 60 - experts + seed / 10, "rank": rank}}},
                recipe={"optimizer": {"name": "sgd", "lr": 3.0}} if experts == 9 else None,
            )
            # A stage after training has no part in what training gave.
            stages = [{"name": "train"}, *([{"name": "cache"}] if experts == 3 else [])]
            spec = {**record.spec, "head": {"name": head, "experts": experts}, "stages": stages}
            found.append(record.model_copy(update={"spec": spec, "run_key": spec_key(spec)}))
    return found


def learned() -> list[Record]:
    triples = [[z / 16 - 8, 2 * (z / 16 - 8) + 5, z / 256] for z in range(257)]
    return [
        make_record(head=head).model_copy(update={"functions": {"train": triples}}) for head in ("plif", "mos+plif")
    ]


def answered() -> list[Record]:
    """Of head a three runs, of b one, of c one that stopped early, of d one that stopped before anything published."""
    stopped: dict[str, Any] = {
        "recipe": {"budget": {"epochs": 50}},
        "status": "interrupted",
        "curves": [{"epoch": 5.0, "valid_ppl": 90.0}],
    }
    return [
        *(make_record(head="a", seed=seed, test=60 + seed / 10) for seed in (1, 2, 3)),
        make_record(head="b", test=59.0),
        make_record(head="c", **stopped),
        make_record(head="d", **stopped),
    ]


def printed() -> list[Published]:
    paper = Paper("p", "A paper", ("A. Author",), "Somewhere", 2018)
    values = {
        "a": {"test.ppl": Value(60.0, 0.3, 5)},
        "b": {"test.ppl": Value(60.0)},
        "c": {"valid.ppl": Value(60.0), "test.ppl": Value(58.0)},
        "d": {"test.ppl": Value(58.0)},
        "e": {"test.ppl": Value(58.0)},
    }
    return [
        Published(paper, "1", "ptb", "awd-lstm", head, "nt-asgd", "train", found, "the PDF")
        for head, found in values.items()
    ]


def benchmark(folder: Path) -> Path:
    shape = {"shape": "s", "N": 840, "K": 15, "d": 280, "V": 10000}
    rows = [
        {**shape, "form": "one pass", "dtype": "tf32", "ms": 1.3, "peak_mib": 151.6},
        {**shape, "form": "one pass", "dtype": "bfloat16", "ms": 0.9, "peak_mib": 86.3, "commit": "d" * 40},
        {**shape, "form": "materialised, as published", "dtype": "tf32", "ms": 3.8, "peak_mib": 1923.7},
        {**shape, "form": "materialised, torch.compile", "dtype": "tf32", "failed": "out of memory"},
        {**shape, "form": "of no page", "dtype": "tf32", "ms": 9.0, "peak_mib": 9.0},
    ]
    path = folder / "benchmarks" / "heads.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"device": "a GPU", "torch": "2.0", "rows": rows}))
    return folder


def sources(results: Path, records: Sequence[Record]) -> Sources:
    return Sources(results, records, {}, [LOG], printed())


def every_kind() -> list[Record]:
    found: dict[str, Record] = {}
    for record in [*precisions(), *grid(), *spectral(), *costly(), *mixtures(), *learned(), *answered()]:
        found.setdefault(record.run_key, record)
    return list(found.values())


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    folder = benchmark(tmp_path) / "figures"
    records = every_kind()
    first = list(draw_all(sources(tmp_path, records)))
    content = {path.name: path.read_bytes() for path in folder.iterdir()}
    stems = [
        "cost-ptb-nt-asgd-train",
        "curve-log-float16-float32",
        "curve-log-float32",
        "experts-ptb-nt-asgd-train",
        "forest-ptb-ppl",
        "function-ptb-nt-asgd-train",
        "heads-by-shape",
        "precision-ptb-awd-lstm-mos-15-s1",
        "spectrum-ptb-nt-asgd-rank-test",
        "synthetic-categorical-N1000-beta0.01",
    ]
    assert sorted(content) == [f"{stem}{suffix}" for stem in stems for suffix in (".png", ".svg")]
    assert all(line.startswith("wrote ") for line in first)
    assert all(line.startswith("unchanged ") for line in draw_all(sources(tmp_path, records[::-1])))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == content
    for stem in stems:
        with Image.open(folder / f"{stem}.png") as image:
            assert image.info.keys() == {"dpi", "Software", DESCRIPTION}, "no date, no version"
            assert image.info["Software"] == MARK
            said = image.info[DESCRIPTION]
        assert said.endswith(".")
        drawing = content[f"{stem}.svg"].decode()
        assert f"<dc:description>{escape(said)}</dc:description>" in drawing
        assert "<dc:date>" not in drawing
        assert "atplotlib v" not in drawing
        assert len(drawing) < 300_000


def test_what_has_no_records_is_skipped_in_a_line(tmp_path: Path) -> None:
    assert list(draw_all(sources(tmp_path, []))) == [
        "skipped validation curve over a published log: no curve of 5 points or more of the model and protocol of a "
        "published log",
        "skipped learning curves by precision: no two runs of one model and seed in two precisions, with 5 points or "
        "more",
        "skipped singular-value spectra: no record holds a spectrum",
        "skipped learned functions: no record holds a learned function; runs of this version of the suite keep it",
        "skipped synthetic heat maps: no full categorical runs over several numbers of words and several sizes",
        "skipped quality against cost: no two full cells of one section whose seconds were measured alike",
        "skipped quality and rank by number of experts: no two full cells that differ in the number of experts alone",
        "skipped ours against published: no published number has a run of ours that answers it, not even in part",
        "skipped time and memory of the heads: no benchmark of the heads; `make bench-gpu` makes one",
    ]
    assert list(tmp_path.iterdir()) == []


def test_figures_whose_records_are_gone_go_too_and_no_other_file_does(tmp_path: Path) -> None:
    folder = tmp_path / "figures"
    list(draw_all(sources(tmp_path, spectral()[:1])))
    stale = sorted(folder.iterdir())
    assert [path.suffix for path in stale] == [".png", ".svg"]
    Image.new("RGB", (2, 2)).save(folder / "mine.png")
    others = {"mine.svg": "<svg/>", "note.md": MARK, "broken.png": MARK, ".hidden.svg": stale[1].read_text()}
    for name, text in others.items():
        (folder / name).write_text(text)
    kept = {*others, "mine.png"}
    partly = list(draw_all(sources(tmp_path, learned()[:1]), tidy=False))
    assert not any(line.startswith("removed ") for line in partly), "some tasks' records say nothing of the others'"
    lines = list(draw_all(sources(tmp_path, learned()[:1])))
    assert [line for line in lines if line.startswith("removed ")] == [f"removed {path}" for path in stale]
    drawn = {"function-ptb-nt-asgd-train.png", "function-ptb-nt-asgd-train.svg"}
    assert {path.name for path in folder.iterdir()} == kept | drawn


def texts_inside(figure: Figure) -> None:
    png(figure)
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    width, height = figure.bbox.size
    for text in figure.findobj(Text):
        if text.get_text().strip() and text.get_visible():
            box = text.get_window_extent(renderer)
            inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
            # Ticks beyond the limits of an axis are laid out and never drawn.
            tick = re.fullmatch(r"[-\d.]+|\$\\mathdefault\{.*\}\$", text.get_text().replace("\N{MINUS SIGN}", "-"))
            assert inside or tick, text


KINDS = ("curve", "precision", "spectrum", "synthetic", "cost", "experts", "function", "forest", "heads")


@pytest.mark.parametrize("kind", KINDS)
def test_no_text_is_cut_off(kind: str, tmp_path: Path) -> None:
    with look():
        drawn = {
            "curve": lambda: over_published(precisions()[:1], [LOG]),
            "precision": lambda: by_precision(precisions()),
            "spectrum": lambda: spectra(spectral()),
            "synthetic": lambda: synthetic(grid()),
            "cost": lambda: quality_against_cost(group(costly()), costly()),
            "experts": lambda: by_experts(group(mixtures())),
            "function": lambda: functions(learned()),
            "forest": lambda: forest(build(answered(), printed())),
            "heads": lambda: head_costs(benchmark(tmp_path)),
        }[kind]
        ((_, figure),) = drawn()
        texts_inside(figure)


def test_raw_own_and_tracked_averages_are_told_apart() -> None:
    found = series(make_record(curves=curve()))
    assert list(found) == ["ours, raw iterate", "ours, averaged from epoch 8", "ours, the recipe's own average"]
    assert list(found["ours, raw iterate"]) == list(range(1, 13))
    assert list(found["ours, averaged from epoch 8"]) == list(range(8, 13))
    assert list(found["ours, the recipe's own average"]) == list(range(9, 13))
    # Without a raw column, what was scored before averaging is the raw iterate.
    older = [{k: v for k, v in point.items() if k in ("epoch", "averaged", "valid_ppl")} for point in curve()]
    assert list(series(make_record(curves=older))["ours, raw iterate"]) == list(range(1, 9))


def test_the_gap_sets_like_beside_like() -> None:
    with look():
        ((name, figure),) = over_published([make_record(curves=curve())], [LOG])
    assert name == "curve-log-float32"
    upper, lower = figure.axes
    labels = [line.get_label() for line in upper.get_lines()]
    assert labels[:2] == ["a published log", "ours, raw iterate"]
    raw, averaged, own = lower.get_lines()[:3]
    assert list(raw.get_xdata()) == list(range(1, 8)), "the log is raw until it averages"
    assert list(averaged.get_xdata()) == list(range(8, 13))
    assert list(own.get_xdata()) == list(range(9, 13))
    assert list(averaged.get_ydata()) == pytest.approx([0.01 * (60 + 200 / e) - 1 for e in range(8, 13)])  # type: ignore[arg-type]


def test_only_runs_of_the_same_model_and_protocol_lie_over_a_log() -> None:
    others = [
        make_record(curves=curve(), head="moc-15"),
        make_record(curves=curve(), protocol="short"),
        make_record(curves=curve()[:4]),
    ]
    assert list(over_published(others, [LOG])) == []


def test_precisions_of_one_seed_and_another_seed_for_scale() -> None:
    records = [*precisions(), make_record(seed=2, curves=curve(factor=1.01), head="mos-15", recipe=FLOAT16)]
    with look():
        ((_, figure),) = by_precision(records)
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]  # type: ignore[union-attr]
    assert labels == ["float16/float32", "float16/float32, seed 2", "float32"]
    assert figure.axes[1].get_ylabel() == "against float32 (%)"
    assert list(by_precision(records[1:])) == [], "one precision is no comparison"


def test_precisions_take_the_longest_run_of_any_task_as_far_as_float32_goes() -> None:
    float32, float16 = precisions()
    longer = make_record(
        task="mos-ptb-averages",
        curves=curve(epochs=30),
        recipe=FLOAT16 | {"averaging": {"trigger": "epoch", "epoch": 5}, "budget": {"epochs": 30}},
    )
    late = make_record(curves=curve(), recipe=FLOAT16 | {"averaging": {"trigger": "epoch", "late_learning_rate": True}})
    with look():
        ((name, figure),) = by_precision([float32, float16, longer, late])
    assert name == "precision-ptb-awd-lstm-mos-15-s1"
    other, base = figure.axes[0].get_lines()[:2]
    assert list(other.get_xdata()) == list(base.get_xdata()) == list(range(1, 13))
    raw = [1.01 * (60 + 200 / epoch) + 5 for epoch in range(1, 13)]
    assert list(other.get_ydata()) == pytest.approx(raw), "of the longer run, and not averaged"  # type: ignore[arg-type]
    assert list(by_precision([float32, late])) == [], "a rate that is scaled late is another way"


def test_thresholds_are_those_of_the_papers_and_of_numpy() -> None:
    found = thresholds(82430, 10000)
    matrix = np.diag([1.0, found["numpy's, float64"] * 1.01, found["numpy's, float64"] * 0.99])
    tall = np.zeros((82430, 3))
    tall[:3] = matrix
    assert np.linalg.matrix_rank(tall) == 2
    papers = 0.5 * math.sqrt(82430 + 10000 + 1) * float(np.finfo(np.float32).eps)
    assert found["the papers': Press, float32"] == pytest.approx(papers)


def test_heat_maps_hold_means_and_ratios() -> None:
    with look():
        ((_, figure),) = synthetic(grid())
    shown = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    # softmax, then plif: KL by words (rows) and size (columns), and over the softmax's.
    assert shown[0] == ["0.25", "0.12", "0.25", "0.12"]
    assert shown[1] == ["1.00"] * 4
    assert shown[4] == ["0.18", "0.090", "0.18", "0.090"]
    assert shown[5] == ["0.72"] * 4
    assert shown[7] == ["1.39", "1.25", "1.39", "1.25"]


def test_seconds_of_packed_runs_and_of_two_machines_are_no_points() -> None:
    packed = [make_record(head=head, costs={"packed": True}) for head in ("softmax", "mos-15")]
    assert list(quality_against_cost(group(packed), packed)) == []
    apart = [make_record(head="softmax"), make_record(head="mos-15", device="another")]
    assert list(quality_against_cost(group(apart), apart)) == []
    # A short run alone on the machine tells what the packed one cannot.
    alone = [make_record(head=head, scope="short", seed=9) for head in ("softmax", "mos-15")]
    assert [name for name, _ in quality_against_cost(group(packed), [*packed, *alone])] == ["cost-ptb-nt-asgd-train"]


def test_one_model_trained_in_two_ways_has_one_cost_and_no_figure() -> None:
    """Quality against cost is for models that cost other amounts; a long name leaves the panels their room."""
    way = ("train", "finetune", "dynamic-evaluation")
    scores = {stage: {"test": {"ppl": 50.0 - place}} for place, stage in enumerate(way)}
    one = [
        make_record(task="a", stages=way, metrics=scores),
        make_record(task="b", stages=way[::2], metrics={stage: scores[stage] for stage in way[::2]}),
    ]
    assert list(quality_against_cost(group(one), one)) == []
    two = [*one, make_record(task="b", head="softmax", stages=way[::2], metrics={way[2]: scores[way[2]]})]
    with look():
        ((name, figure),) = quality_against_cost(group(two), two)
    assert name == "cost-ptb-nt-asgd-dynamic-evaluation"
    assert max(len(line) for text in figure.legends[0].texts for line in text.get_text().splitlines()) <= 42


def test_the_published_log_of_the_repository() -> None:
    (log,) = load_curves()
    assert (log.dataset, log.encoder, log.averaged_from, len(log.values)) == ("ptb", "awd-lstm", 62, 356)
    assert log.beside(make_record())
    assert log.beside(make_record(head="mos-15-tf32", protocol="et-asgd-62"))
    assert [log.values[epoch] for epoch in (1, 61, 62, 161)] == [270.23, 70.54, 63.78, 59.5]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("epoch,valid_ppl\n1,2\n", "{0}/a.csv:1: expected the columns stage, epoch, valid_ppl and at least one row"),
        ("stage,epoch,valid_ppl\ntrain,1,2\ntrain,2,x\n", "{0}/a.csv:3: epoch and valid_ppl must be numbers"),
    ],
)
def test_a_published_log_that_is_none(tmp_path: Path, table: str, message: str) -> None:
    (tmp_path / "a.yaml").write_text(
        "{title: t, file: a.csv, dataset: ptb, encoder: e, heads: [h], protocols: [p], stage: train}"
    )
    (tmp_path / "a.csv").write_text(table)
    with pytest.raises(InputError) as caught:
        load_curves(tmp_path)
    assert str(caught.value) == message.replace("{0}", str(tmp_path))


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1))
def test_the_front_is_what_no_point_beats(points: list[tuple[int, int]]) -> None:
    kept = front(points)

    def beaten(one: tuple[int, int]) -> bool:
        return any(other != one and other[0] <= one[0] and other[1] <= one[1] for other in points)

    assert sorted(kept) == [index for index, point in enumerate(points) if not beaten(point)]
    assert [points[index] for index in kept] == sorted(points[index] for index in kept)


@pytest.mark.parametrize("allocator", [True, False])
def test_cost_figures_mark_the_front_by_seconds_and_by_memory(allocator: bool) -> None:
    """By the allocator's peak where all have one: what NVML counts may be as much for each of them."""
    costs = {"softmax": (60.0, 2.0, 900.0), "mos-15": (58.0, 3.4, 4000.0), "moc-15": (61.0, 3.0, 800.0)}
    records = [
        make_record(
            head=head,
            test=test,
            costs={
                "seconds_per_epoch": seconds,
                "gpu_peak_mib": 5000.0 if allocator else peak,
                "allocator_peak_mib": peak if allocator or head == "softmax" else None,
            },
        )
        for head, (test, seconds, peak) in costs.items()
    ]
    with look():
        ((_, figure),) = quality_against_cost(group(records), records)
    filled = [
        [line.get_label() for line in axes.containers if line.lines[0].get_markerfacecolor() != "#FFFFFF"]
        for axes in figure.axes
    ]
    assert filled == [
        ["awd-lstm/softmax, n = 1", "awd-lstm/mos-15, n = 1"],
        ["awd-lstm/softmax, n = 1", "awd-lstm/moc-15, n = 1", "awd-lstm/mos-15, n = 1"],
    ]
    assert [axes.get_xlabel() for axes in figure.axes] == [
        "training seconds an epoch (NVIDIA H200)",
        f"peak of memory, MiB ({'allocator' if allocator else 'NVML, process'})",
    ]


def test_the_legend_breaks_no_line_within_the_number_of_seeds() -> None:
    records = [
        make_record(encoder="transformer-256-latent-dropout-0", head=head, costs={"seconds_per_epoch": 2.0})
        for head in ("moc-1", "moc-10", "moss-10", "softmax")
    ]
    with look():
        ((_, figure),) = quality_against_cost(group(records), records)
    lines = [line for text in figure.legends[0].texts for line in text.get_text().splitlines()]
    assert len(lines) > len(records)
    assert [line for line in lines if re.search(r"n\s=\s1$", line)] == lines[1::2], lines


def test_characters_are_shown_in_bits() -> None:
    records = [
        make_record(
            head=head, metrics={"train": {"test": {"ppl": 2**bits, "bpc": bits}}}, costs={"seconds_per_epoch": 2.0}
        )
        for head, bits in (("softmax", 2.0), ("mos-7", 1.5))
    ]
    with look():
        ((_, figure),) = quality_against_cost(group(records), records)
    axes = figure.axes[0]
    assert axes.get_ylabel() == "bits per character, mean and 95 % interval"
    assert axes.get_ylim()[1] < 3.0


def test_runs_for_the_clock_show_their_two_costs_and_nothing_they_learned() -> None:
    costs = {"softmax": (2.0, 900.0), "mos-15": (3.4, 4000.0), "moc-15": (3.0, 950.0), "plif": (2.5, None)}
    records = [
        make_record(
            head=head,
            protocol="cost",
            costs={"seconds_per_epoch": seconds, "gpu_peak_mib": peak, "allocator_peak_mib": None},
        )
        for head, (seconds, peak) in costs.items()
    ]
    with look():
        ((_, figure),) = quality_against_cost(group(records), records)
        assert list(functions([r.model_copy(update={"functions": learned()[0].functions}) for r in records])) == []
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == (
        "training seconds an epoch (NVIDIA H200)",
        "peak of memory, MiB (NVML, process)",
    )
    points = {c.get_label(): (c.lines[0].get_xdata()[0], c.lines[0].get_ydata()[0]) for c in axes.containers}
    assert points == {
        "awd-lstm/softmax, n = 1": (2.0, 900.0),
        "awd-lstm/moc-15, n = 1": (3.0, 950.0),
        "awd-lstm/mos-15, n = 1": (3.4, 4000.0),
    }


@given(st.floats(1e-6, 1e6), st.floats(1.001, 1e9))
def test_ticks_of_a_logarithmic_axis_are_few_and_inside(low: float, ratio: float) -> None:
    ticks = log_ticks(low, low * ratio)
    assert len(ticks) <= 9
    assert ticks == sorted(set(ticks))
    assert all(low * 0.999999 <= tick <= low * ratio * 1.000001 for tick in ticks)
    assert len(ticks) >= 2 or ratio < 1.05


def test_44_lines_differ_without_their_colours() -> None:
    looks = [line_look(index) for index in range(44)]
    assert len({(look["linestyle"], look["marker"]) for look in looks}) == 44


def test_lines_by_experts_hold_what_differs_in_nothing_else() -> None:
    with look():
        ((name, figure),) = by_experts(group(mixtures()))
    assert name == "experts-ptb-nt-asgd-train"
    quality, rank = figure.axes
    lines = {bars.get_label(): bars.lines[0] for bars in quality.containers}
    assert sorted(lines) == ["awd-lstm/moc", "awd-lstm/mos"]
    assert list(lines["awd-lstm/mos"].get_xdata()) == [1, 3]
    assert list(lines["awd-lstm/mos"].get_ydata()) == pytest.approx([59.15, 57.15])
    assert [list(bars.lines[0].get_ydata()) for bars in rank.containers] == [[40, 40], [40, 9000]]
    assert list(by_experts(group(mixtures()[:2]))) == [], "one number of experts is no line"
    for_the_clock = [r.model_copy(update={"task": r.task.model_copy(update={"protocol": "cost"})}) for r in mixtures()]
    assert list(by_experts(group(for_the_clock))) == []


def test_the_forest_has_every_published_number_that_is_answered() -> None:
    with look():
        ((name, figure),) = forest(build(answered(), printed()))
    assert name == "forest-ptb-ppl"
    (axes,) = figure.axes
    assert [label.get_text().split("\n")[0] for label in axes.get_yticklabels()] == [
        f"awd-lstm/{head}" for head in "abcd"
    ]
    marked = {m: line for line in axes.get_lines() if (m := line.get_marker()) in ("o", "D", ">")}
    assert float(marked["o"].get_xdata()[0]) == pytest.approx(100 * (60.2 / 60 - 1))
    assert float(marked["D"].get_xdata()[0]) == pytest.approx(100 * (59 / 60 - 1))
    assert marked[">"].get_markerfacecolor() == "#FFFFFF", "a run that stopped early is hollow"
    shown = [text.get_text() for text in axes.texts]
    assert shown == [
        "nt-asgd · train",
        "60.20 ± 0.10 (3) / 60.00 ± 0.30 (5)\nreproduced",
        "59.00 (1) / 60.00\nsingle run",
        "90.00 / 60.00\nstopped at 5 of 50 epochs",
        "+50 %",
        "- / 58.00\nstopped at 5 of 50 epochs",
        "no published validation value",
    ]


def test_a_run_that_stopped_before_a_stage_answers_none_of_its_numbers() -> None:
    stopped = make_record(
        head="c",
        stages=("train", "finetune"),
        recipe={"budget": {"epochs": 50}},
        status="interrupted",
        curves=[{"epoch": 5.0, "stage": 0.0, "valid_ppl": 61.0}],
    )
    number = next(published for published in printed() if published.head == "c")
    with look():
        ((_, figure),) = forest(build([stopped], [number, replace(number, stage="finetune")]))
    said = [text.get_text() for text in figure.axes[0].texts]
    assert said == [
        "nt-asgd · train",
        "61.00 / 60.00\nstopped at train: 5 of 50 epochs",
        "nt-asgd · finetune",
        "- / 58.00\nstopped at train: 5 of 50 epochs",
        "stopped before this stage",
    ]


def test_a_run_that_hardly_began_is_in_no_forest() -> None:
    number = next(published for published in printed() if published.head == "c")
    for epoch, figures in ((5.0, 1), (4.0, 0)):
        stopped = make_record(
            head="c",
            recipe={"budget": {"epochs": 50}},
            status="interrupted",
            curves=[{"epoch": epoch, "valid_ppl": 61.0}],
        )
        with look():
            assert len(list(forest(build([stopped], [number])))) == figures


def test_a_learned_function_is_shown_up_to_a_constant_with_its_slope() -> None:
    with look():
        ((_, figure),) = functions(learned()[:1])
    upper, lower = figure.axes
    thick = next(line for line in upper.get_lines() if line.get_label() == "awd-lstm/plif")
    places, values = np.asarray(thick.get_xdata()), np.asarray(thick.get_ydata())
    assert values == pytest.approx(2 * places), "the constant, which changes no probability, is gone"
    assert (places[0], places[-1]) == (-7.8125, 7.8125), "98 % of the logits"
    assert lower.get_lines()[0].get_ydata() == pytest.approx([2.0] * 32)
    assert "as built" not in figure.get_label(), "older records do not have it"


def test_a_learned_function_stands_on_the_one_it_was_built_as() -> None:
    (record,) = learned()[:1]
    rows = [[z, g, share, 1.5 * z - 3] for z, g, share in record.functions["train"]]
    with look():
        ((_, figure),) = functions([record.model_copy(update={"functions": {"train": rows}})])
    _, lower = figure.axes
    (dotted,) = [line for line in lower.get_lines() if line.get_linestyle() == ":"]
    assert dotted.get_ydata() == pytest.approx([1.5] * 32)
    assert [text.get_text() for text in lower.texts] == ["dotted: as built, before training"]
    assert figure.get_label().endswith("slopes 2 to 2, as built 1.5 to 1.5.")


def test_bars_of_the_heads_are_hatched_by_arithmetic(tmp_path: Path) -> None:
    with look():
        ((name, figure),) = head_costs(benchmark(tmp_path))
    assert name == "heads-by-shape"
    bars = [[(bar.get_width(), bar.get_hatch()) for bar in axes.patches] for axes in figure.axes]  # type: ignore[attr-defined]
    assert bars == [[(3.8, "////"), (0.9, ""), (1.3, "////")], [(1923.7, "////"), (86.3, ""), (151.6, "////")]]
    assert figure.axes[0].get_title(loc="left") == (
        "N = 840 contexts, K = 15, d = 280, V = 10,000 words (at commit ddddddd)"
    )
    assert list(head_costs(tmp_path / "nowhere")) == []


def test_a_benchmark_that_is_none(tmp_path: Path) -> None:
    path = benchmark(tmp_path) / "benchmarks" / "heads.json"
    path.write_text('{"device": "a GPU", "torch": "2", "rows": [{"form": "one pass", "ms": 1, "peak_mib": 2}]}')
    with pytest.raises(InputError) as caught:
        list(head_costs(tmp_path))
    assert str(caught.value) == (
        f"{path}: cannot be read as a benchmark of heads (KeyError: 'N'); run make bench-gpu again"
    )
