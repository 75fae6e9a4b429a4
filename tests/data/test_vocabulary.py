from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from suite.data.vocabulary import Vocabulary, tokenize
from suite.errors import DataError

# All kinds of white space and line ends that str.split and text mode know, and some that only one of them does.
texts = st.text(alphabet="ab \t\n\r\x0b\x0c\x1c\x85\xa0\u2028\u3000é", max_size=80)


@given(texts)
def test_tokenize_equals_the_official_loop_over_lines(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("text") / "corpus.txt"
    path.write_bytes(text.encode())
    with path.open(encoding="utf-8") as lines:
        official = [word for line in lines for word in [*line.split(), "<eos>"]]
    assert tokenize(text) == official


def test_blank_lines_end_with_eos_and_the_last_newline_may_be_missing() -> None:
    assert tokenize(" a b \n\nc") == ["a", "b", "<eos>", "<eos>", "c", "<eos>"]
    assert tokenize("") == []


@given(st.lists(st.lists(st.sampled_from("abcdef<"), max_size=12), max_size=4))
def test_ids_follow_first_appearance_and_decode_back(splits: list[list[str]]) -> None:
    official: dict[str, int] = {}
    for tokens in splits:
        for word in tokens:
            official.setdefault(word, len(official))
    words = Vocabulary.build(*splits)
    assert words.ids == official
    for tokens in splits:
        ids = words.encode(tokens)
        assert ids.dtype == np.int32
        assert [words.words[i] for i in ids] == tokens


def test_round_trip(tmp_path: Path) -> None:
    words = Vocabulary(["the", "<unk>", '"', "naïve", "\u2028"])
    path = tmp_path / "vocabulary.json"
    path.write_text(words.to_json(), encoding="utf-8")
    assert Vocabulary.from_file(path).words == words.words


def test_unknown_word_is_refused() -> None:
    with pytest.raises(DataError) as caught:
        Vocabulary(["a", "b"]).encode(["a", "c"])
    assert str(caught.value) == "the word 'c' is not in the dictionary of 2 words"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"a": 1}', "expected a JSON list of words"),
        ("[1]", "expected a JSON list of words"),
        ('["a", "a"]', "a word appears twice in the dictionary"),
        ("[", "Expecting value: line 1 column 2 (char 1)"),
    ],
)
def test_a_file_that_is_no_dictionary_is_refused(tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "vocabulary.json"
    path.write_text(content)
    with pytest.raises(DataError) as caught:
        Vocabulary.from_file(path)
    assert str(caught.value) == f"{path}: not a dictionary: {reason}; remove the file"
