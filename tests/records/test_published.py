"""Published numbers: spot values typed from the research notes, and the reader's messages in full."""

from __future__ import annotations

from pathlib import Path

import pytest

from suite.errors import InputError
from suite.records.published import BASELINES, Published, Value, load_published

PTB, WT2 = "ptb", "wikitext-2"


@pytest.fixture(scope="module")
def published() -> list[Published]:
    return load_published()


def select(numbers: list[Published], paper: str, table: str, dataset: str, method: str, stage: str) -> list[Published]:
    return [
        number
        for number in numbers
        if (number.paper.key, number.table, number.dataset, number.method, number.stage)
        == (paper, table, dataset, method, stage)
    ]


# paper, table, dataset, method, stage, protocol, then values; typed apart from the YAML files.
SPOTS = [
    ("yang2018", "1", PTB, "awd-lstm/mos-15", "train", "nt-asgd", {"valid.ppl": 58.08, "test.ppl": 55.97}),
    ("yang2018", "1", PTB, "awd-lstm/mos-15", "finetune", "nt-asgd", {"valid.ppl": 56.54, "test.ppl": 54.44}),
    ("yang2018", "1", PTB, "awd-lstm/mos-15", "dynamic-evaluation", "nt-asgd", {"valid.ppl": 48.33, "test.ppl": 47.69}),
    ("yang2018", "2", WT2, "awd-lstm/mos-15", "train", "nt-asgd", {"valid.ppl": 66.01, "test.ppl": 63.33}),
    ("yang2018", "2", WT2, "awd-lstm/mos-15", "finetune", "nt-asgd", {"valid.ppl": 63.88, "test.ppl": 61.45}),
    ("yang2018", "2", WT2, "awd-lstm/mos-15", "dynamic-evaluation", "nt-asgd", {"valid.ppl": 42.41, "test.ppl": 40.68}),
    ("yang2018", "3", "lm1b", "lstm/softmax", "train", "lm1b-100k", {"train.ppl": 41.47, "test.ppl": 42.77}),
    ("yang2018", "3", "lm1b", "lstm/mos-7", "train", "lm1b-100k", {"valid.ppl": 38.01, "test.ppl": 37.10}),
    (
        "yang2018",
        "4",
        "switchboard",
        "seq2seq/mos",
        "train",
        "switchboard-dialogue",
        {"test.ppl": 32.727, "test.bleu1_precision": 0.272, "test.bleu4_recall": 0.123},
    ),
    ("yang2018", "5", PTB, "awd-lstm/moc-15", "train", "nt-asgd", {"valid.ppl": 59.82, "test.ppl": 57.55}),
    ("yang2018", "5", PTB, "awd-lstm-mos-sizes/softmax", "train", "nt-asgd", {"valid.ppl": 78.86, "test.ppl": 74.86}),
    ("yang2018", "5", WT2, "awd-lstm/softmax", "train", "nt-asgd", {"valid.ppl": 68.73, "test.ppl": 65.40}),
    ("yang2018", "5", WT2, "awd-lstm-mos-sizes/softmax", "train", "nt-asgd", {"valid.ppl": 72.73, "test.ppl": 69.18}),
    ("yang2018", "6", PTB, "awd-lstm/mos-15", "train", "nt-asgd", {"valid.rank": 9981, "test.rank": 9981}),
    ("yang2018", "6", PTB, "awd-lstm/moc-15", "train", "nt-asgd", {"valid.rank": 280, "test.rank": 280}),
    ("yang2018", "7", PTB, "awd-lstm/mos-3", "train", "nt-asgd", {"test.rank": 6467, "test.ppl": 58.62}),
    ("yang2018", "7", PTB, "awd-lstm/mos-20", "train", "nt-asgd", {"test.rank": 9981, "test.ppl": 56.17}),
    ("yang2018", "11", PTB, "awd-lstm/mos-15", "train", "nt-asgd", {"test.pairwise_kld": 5.284}),
    ("yang2018", "12", "text8", "lstm-860-452/mos-10", "train", "text8-char", {"valid.bpc": 1.41, "test.bpc": 1.49}),
    ("yang2018", "README", PTB, "awd-lstm/mos-15", "dynamic-evaluation", "nt-asgd", {"test.ppl": 48.43}),
    ("yang2018", "issue 14", WT2, "awd-lstm/mos-15", "finetune", "nt-asgd", {"valid.ppl": 64.41, "test.ppl": 61.77}),
    ("yang2018", "as quoted", PTB, "awd-lstm/mos-15", "train", "nt-asgd", {"test.ppl_gain": 2.88}),
    ("merity2018", "1", PTB, "awd-lstm/softmax", "finetune", "nt-asgd", {"valid.ppl": 60.0, "test.ppl": 57.3}),
    ("merity2018", "2", WT2, "awd-lstm/softmax", "cache", "nt-asgd", {"valid.ppl": 53.8, "test.ppl": 52.0}),
    ("merity2018", "5", PTB, "awd-lstm/softmax", "train", "nt-asgd", {"valid.ppl": 60.7, "test.ppl": 58.8}),
    ("merity2018", "4", PTB, "awd-lstm/softmax", "train", "nt-asgd", {"test.ppl": 58.3}),
    ("merity2018", "4", WT2, "awd-qrnn/softmax", "finetune", "nt-asgd", {"valid.ppl": 68.5, "test.ppl": 65.9}),
    (
        "merity2018",
        "5",
        WT2,
        "awd-lstm-without-weight-dropping/softmax",
        "unstated",
        "nt-asgd",
        {"valid.ppl": 78.4, "test.ppl": 74.9},
    ),
    ("merity2018", "5", PTB, "awd-lstm/softmax", "unstated", "without-averaging", {"test.ppl": 63.7}),
    ("merity2018", "README", WT2, "awd-lstm/softmax", "cache", "nt-asgd", {"valid.ppl": 52.2, "test.ppl": 50.6}),
    ("merity2018", "README", PTB, "awd-lstm/softmax", "finetune", "nt-asgd", {"valid.ppl": 58.8, "test.ppl": 56.5}),
    ("krause2017", "as quoted", PTB, "awd-lstm/softmax", "dynamic-evaluation", "nt-asgd", {"test.ppl": 51.1}),
    ("krause2017", "README", WT2, "awd-qrnn/softmax", "dynamic-evaluation", "nt-asgd", {"test.ppl": 44.0}),
    ("kanai2018", "as quoted", PTB, "awd-lstm/sigsoftmax", "train", "nt-asgd", {"test.rank": 4640}),
    ("ganea2019", "as quoted", PTB, "awd-lstm/plif", "train", "et-asgd-200", {"test.ppl_gain": 1.11}),
    ("parthiban2021", "1", PTB, "awd-lstm/sigsoftmax", "train", "et-asgd-200", {"test.ppl_gain": -0.06}),
    ("parthiban2021", "6", PTB, "awd-lstm/mos-15", "train", "et-asgd-200", {"test.effective_rank_1e-4": 1521}),
    ("parthiban2021", "6", WT2, "awd-lstm/gss", "train", "et-asgd-200", {"test.effective_rank_1e-5": 2988}),
    ("parthiban2021", "S4", PTB, "awd-lstm/mos-1", "train", "nt-asgd", {"train.ppl": 56.42, "test.ppl": 64.50}),
    ("parthiban2021", "S5", WT2, "awd-lstm/mos-20", "train", "nt-asgd", {"test.ppl": 62.76, "test.rank": 13998}),
    ("parthiban2021", "S12", WT2, "awd-lstm-latent-dropout-0/mos-15", "train", "nt-asgd", {"test.ppl": 68.49}),
    ("parthiban2021", "S15", "noisy-matrix", "rank-10/noise-1e-25", "unstated", "noisy-matrix", {"test.rank": 10}),
    ("parthiban2021", "S15", "noisy-matrix", "rank-10/noise-1e-24", "unstated", "noisy-matrix", {"test.rank": 1159}),
    ("parthiban2021", "S15", "noisy-matrix", "rank-10/noise-1e-22", "unstated", "noisy-matrix", {"test.rank": 9001}),
    ("merity2018", "README", WT2, "awd-lstm/softmax", "train", "speed-batch-20", {"train.seconds_per_epoch": 180}),
    ("melis2018", "2", WT2, "lstm-10m-d4/softmax", "train", "tuned", {"valid.ppl": 78.3, "test.ppl": 74.3}),
    ("takase2018", "as quoted", PTB, "awd-lstm/doc", "finetune", "nt-asgd-60", {"valid.ppl": 54.12, "test.ppl": 52.38}),
    ("melis2020", "as quoted", WT2, "mogrifier-lstm/mos-2", "dynamic-evaluation", "unstated", {"test.ppl": 38.6}),
]


@pytest.mark.parametrize("spot", SPOTS, ids=lambda spot: "-".join(spot[:6]).replace(" ", "_"))
def test_spot_values(published: list[Published], spot: tuple[str, str, str, str, str, str, dict[str, float]]) -> None:
    paper, table, dataset, method, stage, protocol, values = spot
    found = [n for n in select(published, paper, table, dataset, method, stage) if n.protocol == protocol]
    assert len(found) == 1
    assert {name: found[0].values[name].value for name in values} == values


# head, then (mean, sd) of train, valid, test perplexity and test rank, and parameters; 11 seeds.
CONTROLLED = {
    PTB: [
        ("softmax", (33.91, 0.25), (59.55, 0.12), (57.08, 0.09), (402, 0), 24.22e6),
        ("sigsoftmax", (32.87, 0.19), (59.69, 0.15), (57.05, 0.15), (5113, 85), 24.22e6),
        ("gss", (33.68, 0.32), (59.51, 0.13), (57.00, 0.14), (8904, 57), 24.22e6),
        ("plif", (36.67, 0.30), (59.08, 0.09), (56.80, 0.11), (496, 83), 24.32e6),
        ("mos-15", (31.84, 0.23), (57.14, 0.26), (54.91, 0.26), (9981, 2), 21.50e6),
    ],
    WT2: [
        ("softmax", (39.32, 0.14), (67.57, 0.14), (64.63, 0.08), (402, 0), 33.55e6),
        ("sigsoftmax", (39.29, 0.17), (67.28, 0.16), (64.35, 0.17), (6634, 46), 33.55e6),
        ("gss", (39.42, 0.41), (67.35, 0.22), (64.50, 0.13), (10122, 72), 33.55e6),
        ("plif", (41.13, 0.15), (67.15, 0.21), (64.16, 0.17), (524, 74), 33.65e6),
        ("mos-15", (36.17, 0.30), (64.54, 0.36), (61.96, 0.40), (15734, 188), 34.90e6),
    ],
}


@pytest.mark.parametrize("dataset", CONTROLLED)
def test_the_controlled_rerun(published: list[Published], dataset: str) -> None:
    for head, train, valid, test, rank, parameters in CONTROLLED[dataset]:
        (number,) = select(published, "parthiban2021", "2", dataset, f"awd-lstm/{head}", "train")
        for name, (mean, sd) in (("train.ppl", train), ("valid.ppl", valid), ("test.ppl", test), ("test.rank", rank)):
            assert number.values[name] == Value(mean, sd, 11)
        assert (number.parameters, number.protocol) == (parameters, "et-asgd-200")


# train / valid / test / rank, as one line of the table prints them.
ONE_SEED = {
    (PTB, "nt-asgd"): {
        "softmax": "34.05/60.35/58.07/402",
        "sigsoftmax": "33.68/60.45/57.75/4906",
        "gss": "34.24/59.95/57.60/8276",
        "plif": "37.19/60.86/58.45/510",
        "mos-15": "33.08/58.21/56.07/9979",
        "moc-15": "33.73/59.84/57.40/282",
    },
    (PTB, "et-asgd-200"): {
        "softmax": "34.03/59.48/57.10/402",
        "sigsoftmax": "32.83/59.95/57.16/4979",
        "gss": "34.21/59.37/56.78/8989",
        "plif": "37.07/59.08/56.67/580",
        "mos-15": "31.62/57.12/55.11/9983",
        "moc-15": "31.37/58.38/55.81/282",
    },
    (WT2, "nt-asgd"): {
        "softmax": "39.07/68.35/65.28/402",
        "sigsoftmax": "39.21/67.84/65.08/5879",
        "gss": "39.05/67.72/65.07/9130",
        "plif": "41.11/68.54/65.59/479",
        "mos-15": "35.92/65.93/63.06/13215",
        "moc-15": "37.21/69.08/66.42/302",
    },
    (WT2, "et-asgd-200"): {
        "softmax": "39.09/67.59/64.56/402",
        "sigsoftmax": "39.19/67.19/64.33/6590",
        "gss": "39.12/66.97/64.38/10145",
        "plif": "41.19/67.19/64.32/513",
        "mos-15": "35.99/64.58/61.90/15738",
        "moc-15": "37.23/68.19/65.83/302",
    },
}


@pytest.mark.parametrize(("dataset", "protocol"), ONE_SEED)
def test_one_seed_under_both_triggers(published: list[Published], dataset: str, protocol: str) -> None:
    table = "S10" if dataset == PTB else "S11"
    for head, line in ONE_SEED[dataset, protocol].items():
        found = select(published, "parthiban2021", table, dataset, f"awd-lstm/{head}", "train")
        (number,) = [item for item in found if item.protocol == protocol]
        names = ("train.ppl", "valid.ppl", "test.ppl", "test.rank")
        assert [number.values[name].value for name in names] == [float(text) for text in line.split("/")]


@pytest.mark.parametrize(
    ("dataset", "method", "line"),
    [
        # same batch, best on one GPU, best on three
        (PTB, "awd-lstm/mos-5", (1.2, None, None)),
        (PTB, "awd-lstm/mos-10", (1.6, None, None)),
        (PTB, "awd-lstm/mos-15", (1.9, 2.8, None)),
        (WT2, "awd-lstm/mos-5", (1.3, None, None)),
        (WT2, "awd-lstm/mos-10", (1.9, None, None)),
        (WT2, "awd-lstm/mos-15", (2.5, 6.4, 2.9)),
        ("lm1b", "lstm/mos-7", (3.8, 5.7, 2.1)),
    ],
)
def test_slow_downs(
    published: list[Published], dataset: str, method: str, line: tuple[float | None, float | None, float | None]
) -> None:
    found = {n.protocol: n for n in select(published, "yang2018", "13", dataset, method, "train")}
    for protocol, factor in zip(("speed-same-batch", "speed-best-1-gpu", "speed-best-3-gpu"), line, strict=True):
        assert (found[protocol].values["train.slowdown"].value if protocol in found else None) == factor


def test_second_hand_numbers_say_so(published: list[Published]) -> None:
    by_paper = {key: [n for n in published if n.paper.key == key] for key in ("kanai2018", "ganea2019")}
    for numbers in by_paper.values():
        assert [n.reported_by for n in numbers] == ["Parthiban et al. 2021, table 1"]
        # Their own perplexities have not been read, so none may stand here.
        assert not any(name.endswith(".ppl") for n in numbers for name in n.values)


def test_what_a_p_value_is_against(published: list[Published]) -> None:
    named = {number.method: number.reference for number in published if "test.ppl_p_value" in number.values}
    assert named == {
        "awd-lstm/sigsoftmax": "awd-lstm/softmax",
        "awd-lstm/gss": "awd-lstm/softmax",
        "awd-lstm/plif": "awd-lstm/softmax",
        "awd-lstm/mos-15": "awd-lstm/softmax",
        "awd-lstm/plif-frozen": "awd-lstm/plif",
        "awd-lstm-matched-340/softmax": "awd-lstm-matched-280/mos-15",
    }


def test_citations_and_order(published: list[Published]) -> None:
    (mos,) = select(published, "yang2018", "1", PTB, "awd-lstm/mos-15", "train")
    assert (mos.citation, mos.parameters, mos.margin) == ("Yang et al. 2018, table 1", 22e6, 0.01)
    (rerun,) = select(published, "yang2018", "README", PTB, "awd-lstm/mos-15", "train")
    assert (rerun.citation, rerun.framework) == ("Yang et al. 2018, README", "PyTorch 0.4.1")
    years = [number.paper.year for number in published]
    assert years == sorted(years)
    assert mos.where.startswith("baselines/yang2018.yaml:")


GOOD = """\
papers:
  a2020: {title: T, authors: [Ann A], venue: V, year: 2020}
protocols:
  p: how
tables:
  - table: "1"
    dataset: ptb
    encoder: lstm
    protocol: p
    stage: train
    source: table 1
    numbers:
      - {head: softmax, values: {test.ppl: 60}}
      - {head: mos-2, margin: 0.02, values: {test.ppl: {value: 59.5, sd: 0.1, n: 3}}}
"""


def write(folder: Path, text: str, name: str = "a2020.yaml") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_a_folder_of_ones_own(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    first, second = load_published(tmp_path)
    assert first.values == {"test.ppl": Value(60.0)}
    assert (first.method, first.where) == ("lstm/softmax", f"{path}:13:9")
    assert second.values == {"test.ppl": Value(59.5, 0.1, 3)}
    assert (first.margin, second.margin) == (0.01, 0.02)


def test_a_number_may_name_the_tasks_that_answer_it(tmp_path: Path) -> None:
    text = GOOD.replace("source: table 1\n", "source: table 1\n    tasks: [mine, lstm-*]\n")
    write(tmp_path, text.replace("{head: mos-2,", "{head: mos-2, tasks: [other],"))
    first, second = load_published(tmp_path)
    assert (first.tasks, second.tasks) == (("mine", "lstm-*"), ("other",))
    named = [task for task in ("mine", "lstm-ptb", "my-lstm-ptb", "other") if first.answered_by(task, "lstm/softmax")]
    assert named == ["mine", "lstm-ptb"]
    assert not first.answered_by("mine", "lstm/mos-2")
    (tmp_path / "a2020.yaml").write_text(GOOD)
    assert load_published(tmp_path)[0].answered_by("whatever", "lstm/softmax")


def test_tasks_must_be_there_where_tasks_are_known(tmp_path: Path) -> None:
    for name in ("baselines", "tasks"):
        (tmp_path / name).mkdir()
    (tmp_path / "tasks/lstm-ptb.yaml").touch()
    text = GOOD.replace("{head: softmax,", "{head: softmax, tasks: [lstm-*, lstm-pbt],")
    write(tmp_path / "baselines", text.replace("{head: mos-2,", "{head: mos-2, tasks: [],"))
    assert problems(tmp_path / "baselines") == (
        "a2020.yaml:13:41: tables[0].numbers[0].tasks[1]: 'lstm-pbt' matches no task file. Did you mean 'lstm-ptb'?\n"
        "a2020.yaml:14:30: tables[0].numbers[1].tasks: expected names of task files or globs over them, at least one; "
        "leave it out for any task"
    )


def problems(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_published(folder)
    return str(caught.value).replace(str(folder) + "/", "")


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    text = (
        GOOD.replace("stage: train", "stage: trian")
        .replace("test.ppl: 60", "test.ppl: .inf")
        .replace("margin: 0.02", "margn: 0.02")
        .replace("sd: 0.1", "sd: -0.1")
        .replace("year: 2020", "year: true")
    )
    write(tmp_path, text + "extra: 1\n")
    assert sorted(problems(tmp_path).splitlines()) == [
        "a2020.yaml:10:12: tables[0].stage: expected one of 'train', 'finetune', 'dynamic-evaluation', 'cache', "
        "'unstated' or null, got 'trian' (default null)",
        "a2020.yaml:13:44: tables[0].numbers[0].values.test.ppl: expected a finite number or {value, sd, n, margin}, "
        "got Infinity",
        "a2020.yaml:14:23: tables[0].numbers[1].margn: unknown key. Did you mean 'margin'?",
        "a2020.yaml:14:73: tables[0].numbers[1].values.test.ppl.sd: expected a non-negative number or null, got -0.1 "
        "(default null)",
        "a2020.yaml:15:1: extra: unknown key. Allowed: papers, protocols, tables.",
        "a2020.yaml:2:55: papers.a2020.year: expected a positive integer, got true",
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "    protocol: p\n",
            "",
            "a2020.yaml:12:9: tables[0].numbers[0]: missing protocol; give it here or for the whole table\n"
            "a2020.yaml:13:9: tables[0].numbers[1]: missing protocol; give it here or for the whole table",
        ),
        (
            "{head: softmax,",
            "{head: softmax, protocol: q,",
            "a2020.yaml:13:9: tables[0].numbers[0].protocol: 'q' is not among this file's protocols. Allowed: p.",
        ),
        (
            "test.ppl: 60",
            "tset.ppl: 60",
            "a2020.yaml:13:34: tables[0].numbers[0].values: 'tset.ppl' is no split.metric such as test.ppl",
        ),
        (
            "{test.ppl: 60}",
            "60",
            "a2020.yaml:13:33: tables[0].numbers[0].values: expected a mapping such as "
            "{valid.ppl: 58.08, test.ppl: 55.97}",
        ),
        (
            "test.ppl: 60",
            "test.ppl: true",
            "a2020.yaml:13:44: tables[0].numbers[0].values.test.ppl: expected a finite number or "
            "{value, sd, n, margin}, got true",
        ),
        (
            "head: mos-2",
            "head: softmax",
            "a2020.yaml:14:9: A 2020, table 1 already gives ptb lstm/softmax (p, train) at a2020.yaml:13:9; "
            "a re-run needs its own table or framework",
        ),
        (
            "dataset: ptb",
            "dataset: Penn Treebank",
            "a2020.yaml:7:14: tables[0].dataset: 'Penn Treebank' is not a label; use lower-case letters, digits, "
            "'.', '+' and '-'",
        ),
        (
            "dataset: ptb",
            "dataset: ptb\n    against: the softmax",
            "a2020.yaml:8:14: tables[0].against: 'the softmax' is neither a head's label nor encoder/head",
        ),
        ("tables:", "tables: []\nmore:", "a2020.yaml:6:1: more: unknown key. Allowed: papers, protocols, tables.\n"
         "a2020.yaml:5:9: tables: expected a list that is not empty"),
    ],
)  # fmt: skip
def test_messages(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    write(tmp_path, GOOD.replace(old, new, 1))
    assert problems(tmp_path) == message


def test_two_files_may_not_describe_one_paper(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    write(tmp_path, GOOD.replace('table: "1"', 'table: "2"'), "b.yaml")
    assert problems(tmp_path) == "b.yaml:2:3: paper 'a2020' is described in another file too"


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_published(tmp_path / "none")
    assert str(caught.value) == f"{tmp_path / 'none'}: no such folder; published numbers live in baselines/"


def test_broken_yaml_has_a_line(tmp_path: Path) -> None:
    write(tmp_path, "papers: [\n")
    assert problems(tmp_path).startswith("a2020.yaml:2:1: not valid YAML: ")


def test_the_default_folder_is_the_repositorys() -> None:
    assert BASELINES.name == "baselines"
    assert (BASELINES / "yang2018.yaml").is_file()
