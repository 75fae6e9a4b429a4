"""Singular values in a record: written a value a line, absent where there are none."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from records_factory import make_record

from suite.errors import InputError
from suite.records.reading import parse_record
from suite.records.record import Record

VALUES = st.lists(st.tuples(st.integers(1, 10_000), st.floats(0, 1)), max_size=4)


@given(st.dictionaries(st.text(max_size=5), VALUES, max_size=3), st.integers(0, 2))
def test_a_record_with_spectra_comes_back_as_it_was(spectra: dict[str, list[tuple[int, float]]], points: int) -> None:
    curves = [{"epoch": float(epoch)} for epoch in range(points)]
    record = make_record(curves=curves).model_copy(update={"spectra": spectra})
    assert parse_record(record.to_json().encode(), "it") == record


def test_a_value_a_line() -> None:
    record = make_record().model_copy(update={"spectra": {"test": [(1, 1.0), (2, 0.25)]}})
    text = '  "spectra": {\n    "test": [\n      [1, 1.0],\n      [2, 0.25]\n    ]\n  },\n  "curves": []\n}\n'
    assert record.to_json().endswith(text)


def test_a_record_without_spectra_is_written_and_read_as_before_there_were_any() -> None:
    record = make_record(curves=[{"epoch": 1.0, "valid_ppl": 60.0}])
    text = record.to_json()
    assert "spectra" not in json.loads(text)
    assert text.endswith('  "message": null,\n  "curves": [\n    {"epoch": 1.0, "valid_ppl": 60.0}\n  ]\n}\n')
    assert Record.model_validate_json(text) == record


def test_a_spectrum_that_is_none() -> None:
    text = make_record().to_json().replace('"curves": []', '"spectra": {"test": [[1]]}, "curves": []')
    with pytest.raises(InputError) as caught:
        parse_record(text.encode(), "it.json")
    assert str(caught.value) == "it.json: spectra.test.0.1: required field is missing"
