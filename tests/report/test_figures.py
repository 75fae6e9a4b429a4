"""Figures: what is drawn of which records, and the same bytes for the same numbers."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from records_factory import make_record

from suite.errors import InputError
from suite.records.reading import spec_key
from suite.records.record import Record
from suite.report.cells import group
from suite.report.descriptions import DESCRIPTION
from suite.report.figures import draw_all
from suite.report.plot_costs import quality_against_cost
from suite.report.plot_curves import by_precision, over_published, series
from suite.report.plot_spectra import spectra, thresholds
from suite.report.plot_synthetic import synthetic
from suite.report.plotting import look, png
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


def every_kind() -> list[Record]:
    found: dict[str, Record] = {}
    for record in [*precisions(), *grid(), *spectral(), *costly()]:
        found.setdefault(record.run_key, record)
    return list(found.values())


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    records = every_kind()
    first = list(draw_all(tmp_path, records, {}, [LOG]))
    content = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert sorted(content) == [
        "cost-ptb-nt-asgd-train.png",
        "curve-log-float16-float32.png",
        "curve-log-float32.png",
        "precision-mos-ptb-ptb-awd-lstm-mos-15-s1-full.png",
        "spectrum-ptb-nt-asgd-rank-test.png",
        "synthetic-categorical-N1000-beta0.01.png",
    ]
    assert all(line.startswith("wrote ") for line in first)
    assert all(line.startswith("unchanged ") for line in draw_all(tmp_path, records[::-1], {}, [LOG]))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == content
    for name in content:
        with Image.open(tmp_path / name) as image:
            assert image.info.keys() <= {"dpi", DESCRIPTION}, "no date, no program"
            assert image.info[DESCRIPTION].endswith(".")


def test_what_has_no_records_is_skipped_in_a_line(tmp_path: Path) -> None:
    assert list(draw_all(tmp_path, [], {}, [LOG])) == [
        "skipped validation curve over a published log: no curve of 5 points or more of the model and protocol of a "
        "published log",
        "skipped learning curves by precision: no two runs that differ in recipe.precision alone, with 5 points or "
        "more",
        "skipped singular-value spectra: no record holds a spectrum",
        "skipped synthetic heat maps: no full categorical runs over several numbers of words and several sizes",
        "skipped quality against cost: no two full cells of one section whose seconds were measured alike",
    ]
    assert list(tmp_path.iterdir()) == []


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


@pytest.mark.parametrize("kind", ["curve", "precision", "spectrum", "synthetic", "cost"])
def test_no_text_is_cut_off(kind: str) -> None:
    with look():
        drawn = {
            "curve": lambda: over_published(precisions()[:1], [LOG]),
            "precision": lambda: by_precision(precisions()),
            "spectrum": lambda: spectra(spectral()),
            "synthetic": lambda: synthetic(grid()),
            "cost": lambda: quality_against_cost(group(costly()), costly()),
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
    assert name == "curve-log-float32.png"
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
    assert shown[4] == ["0.18", "0.09", "0.18", "0.09"]
    assert shown[5] == ["0.72"] * 4
    assert shown[7] == ["1.39", "1.25", "1.39", "1.25"]


def test_seconds_of_packed_runs_and_of_two_machines_are_no_points() -> None:
    packed = [make_record(head=head, costs={"packed": True}) for head in ("softmax", "mos-15")]
    assert list(quality_against_cost(group(packed), packed)) == []
    apart = [make_record(head="softmax"), make_record(head="mos-15", device="another")]
    assert list(quality_against_cost(group(apart), apart)) == []
    # A short run alone on the machine tells what the packed one cannot.
    alone = [make_record(head=head, scope="short", seed=9) for head in ("softmax", "mos-15")]
    assert [name for name, _ in quality_against_cost(group(packed), [*packed, *alone])] == [
        "cost-ptb-nt-asgd-train.png"
    ]


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
