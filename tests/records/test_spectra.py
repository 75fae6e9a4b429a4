"""Spectra and functions in a record: kept, readable in a diff, and absent from records that have none."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from suite.records.record import Record

SPECTRA = {"rank test": [[1.0, 1.0], [2.0, 0.25], [40.0, 1e-17]], "rank valid": [[1.0, 1.0]]}


FUNCTIONS = {"train": [[-1.0, -2.5, 0.001], [1.5, 2.0, 1.0]], "finetune": [[0.0, 1e-9, 0.5, 0.25]]}


def test_they_come_back_as_they_were_one_to_a_line(make_record):
    for curves in ([], [{"epoch": 1.0}]):
        record = make_record(1, curves=curves).model_copy(update={"spectra": SPECTRA, "functions": FUNCTIONS})
        text = record.to_json()
        assert Record.model_validate_json(text) == record
        for name, pairs in [*SPECTRA.items(), *FUNCTIONS.items()]:
            assert f"\n    {json.dumps(name)}: {json.dumps(pairs)}" in text


@pytest.mark.parametrize(
    ("field", "rows", "said"),
    [
        ("spectra", [[1.0, 1.0], [2.0]], "every row must have 2 numbers"),
        ("functions", [[0.0, 1.0]], "every row must have 3 or every row 4 numbers"),
        ("functions", [[0.0, 1.0, 0.5], [1.0, 2.0, 0.5, 1.0]], "every row must have 3 or every row 4 numbers"),
    ],
)
def test_rows_are_as_wide_as_they_are_meant_to_be(make_record, field, rows, said):
    payload = json.loads(make_record(1).to_json()) | {field: {"train": rows}}
    with pytest.raises(ValidationError, match=said):
        Record.model_validate(payload)


def test_a_record_without_any_is_written_as_before(make_record):
    record = make_record(1)
    assert "spectra" not in record.to_json()
    assert "functions" not in record.to_json()
    read = Record.model_validate_json(record.to_json())
    assert (read.spectra, read.functions) == ({}, {})
