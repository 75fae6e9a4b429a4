from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from records_factory import make_record

from suite.errors import InputError
from suite.report.files import csv_text, markers, update_block, write_csv
from suite.report.leaderboard import build

BEGIN, END = markers("leaderboard")


def test_a_missing_file_is_created_once(tmp_path: Path) -> None:
    path = tmp_path / "results" / "LEADERBOARD.md"
    assert update_block(path, "table\n", title="Leaderboard")
    assert path.read_text() == f"# Leaderboard\n\n{BEGIN}\ntable\n{END}\n"
    assert not update_block(path, "table\n", title="Leaderboard")


def test_the_rest_of_the_file_is_kept_byte_for_byte(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_bytes(f"# Title\r\n\r\nbefore {BEGIN} old {END} after, no newline".encode())
    assert update_block(path, "new")
    assert path.read_bytes() == f"# Title\r\n\r\nbefore {BEGIN}\nnew\n{END} after, no newline".encode()


@given(st.text(), st.text())
def test_updating_twice_changes_nothing(before: str, after: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "f.md"
        try:
            path.write_text(f"{before}{BEGIN}{END}{after}", encoding="utf-8", newline="")
        except UnicodeEncodeError:  # half of a surrogate pair is no text of a file
            return
        assert update_block(path, "block")
        assert not update_block(path, "block")
        with path.open(encoding="utf-8", newline="") as file:
            assert file.read() == f"{before}{BEGIN}\nblock\n{END}{after}"


HINT = f"write one {BEGIN} and, after it, one {END}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing", f"{{0}}: marker {BEGIN} is missing; {HINT}\n{{0}}: marker {END} is missing; {HINT}"),
        (f"{BEGIN}", f"{{0}}: marker {END} is missing; {HINT}"),
        (f"{END}", f"{{0}}: marker {BEGIN} is missing; {HINT}"),
        (f"{BEGIN}{BEGIN}{END}", f"{{0}}: marker {BEGIN} stands 2 times; {HINT}"),
        (f"x\n{END}\n{BEGIN}", f"{{0}}:2: marker {END} stands before {BEGIN}; swap them"),
    ],
)
def test_bad_markers_leave_the_file_alone(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "f.md"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        update_block(path, "new", title="Leaderboard")
    assert str(caught.value) == message.format(path)
    assert path.read_text() == text


def test_a_file_that_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        update_block(tmp_path / "README.md", "new")
    assert str(caught.value) == f"{tmp_path / 'README.md'}: no such file"


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "f.md"
    path.write_bytes(b"\xff")
    with pytest.raises(InputError) as caught:
        update_block(path, "new")
    assert str(caught.value) == f"{path}: cannot be read: it is not UTF-8"


def test_csv_file(tmp_path: Path) -> None:
    board = build([make_record()], [])
    write_csv(board, tmp_path / "results" / "leaderboard.csv")
    assert (tmp_path / "results" / "leaderboard.csv").read_text() == csv_text(board)
