"""The web page as text: whole, escaped, bounded, its colours legible; a browser looks at it in test_site_browser.py."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from records_factory import make_record
from site_factory import HOSTILE, draw, hostile_site, sample_site, site

from suite.errors import InputError
from suite.report.site import page
from suite.report.site.pictures import load_pictures
from suite.report.site.settings import Settings


class Reader(HTMLParser):
    """Every start tag with its attributes, and the content of style and script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.raw: dict[str, list[str]] = {"style": [], "script": []}
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] in self.raw and self.lasttag == self.tags[-1][0] and data.strip():
            self.raw[self.tags[-1][0]].append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    return sample_site(tmp_path_factory.mktemp("results")).html()


def test_the_same_records_give_the_same_page(text: str, tmp_path: Path) -> None:
    assert sample_site(tmp_path).html() == text


def test_the_page_has_landmarks_headings_and_captions(text: str) -> None:
    read = Reader(text)
    assert len(read.all("h1")) == 1
    assert [len(read.all(tag)) for tag in ("header", "nav", "main", "footer")] == [1, 1, 1, 1]
    assert read.all("html") == [{"lang": "en"}]
    rows = [table for table in read.all("table") if table.get("class") != "runs"]
    assert len(read.all("caption")) == len(rows)
    assert {cell.get("scope") for cell in read.all("th")} == {"col", "row"}
    ids = [attributes["id"] for _, attributes in read.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    anchors = [link["href"] or "" for link in read.all("a")]
    assert {anchor[1:] for anchor in anchors if anchor.startswith("#")} <= set(ids)
    assert all(image.get("alt") for image in read.all("img"))
    labelled = {label["for"] for label in read.all("label")}
    assert labelled == {attributes["id"] for tag in ("input", "select") for attributes in read.all(tag)}


def test_the_policy_allows_this_style_and_this_script_and_nothing_else(text: str) -> None:
    read = Reader(text)
    (policy,) = [tag["content"] for tag in read.all("meta") if tag.get("http-equiv") == "Content-Security-Policy"]

    def known(content: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"

    (style,), (script,) = ["".join(read.raw["style"])], ["".join(read.raw["script"])]
    assert policy == (
        f"default-src 'none'; style-src {known(style)}; script-src {known(script)}; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )
    assert not [attributes for _, attributes in read.tags if "style" in attributes]
    assert not [name for _, attributes in read.tags for name in attributes if name.startswith("on")]
    assert "http://" not in text
    assert "https://" not in text


def test_nothing_of_a_record_becomes_markup(tmp_path: Path) -> None:
    text = hostile_site(tmp_path).html()
    plain = Reader(sample_site(tmp_path / "other").html())
    hostile = Reader(text)
    assert "<script>window" not in text
    assert len(hostile.all("script")) == 1
    assert {tag for tag, _ in hostile.tags} <= {tag for tag, _ in plain.tags}
    assert html.unescape(text).count(HOSTILE) > 5


@given(st.text(max_size=40))
def test_any_text_at_all_is_text_of_the_page(said: str) -> None:
    environment = page._environment()
    shown = environment.from_string('<i title="{{ said }}">{{ said }}</i>').render(said=said)
    read = Reader(shown)
    assert [tag for tag, _ in read.tags] == ["i"]
    assert read.tags[0][1]["title"] == html.unescape(re.sub(r"<.*?>", "", shown))
    assert all(character.isprintable() for character in shown)


def test_a_text_without_end_is_cut() -> None:
    shown = page._environment().from_string("{{ said }}").render(said="x" * 100_000)
    assert shown == "x" * page.MAX_TEXT + " … (cut)"


def test_marks_runs_and_commands_are_there_without_a_script(text: str) -> None:
    said = html.unescape(text)
    for words in (
        "partial: 22 of 1,000 epochs, fills no cell",
        "single seed: no interval",
        "packed: shared the GPU, costs do not count",
        "stale: the task file has changed since",
        "smoke run: not comparable",
        "short run: not comparable",
        "suite run mos-ptb --only dataset=ptb --only encoder=awd-lstm --only head=mos-15 --seed 1 --seed 2 --seed 3",
        "needed: a corpus under licence",
        "the loss is nan at step 120 of epoch 3",
        "old ptb awd-lstm/softmax seed 1: version 1 of the task, stale: its file is at 2",
        "PLIF beats a softmax.",
        "1 comparison: 1 for",
    ):
        assert words in said, words
    assert (
        "nan"
        not in re.sub(r"the loss is nan", "", re.sub(r"(?s)<(style|script)>.*?</\1>|base64,[^\"]*", "", said)).split()
    )


def test_without_figures_the_page_says_how_to_draw_them(tmp_path: Path) -> None:
    text = site(tmp_path, [make_record()], {}, [], []).html()
    assert "<code>suite report --write --figures</code> draws what the records allow." in text


def test_a_figure_that_does_not_fit_is_named_and_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(tmp_path, "a.png", "What a shows.")
    draw(tmp_path, "b.png", "What b shows.")
    first, second = load_pictures(tmp_path / "figures", 10_000)
    assert first.data.startswith("data:image/png;base64,")
    assert (first.text, first.width, first.height) == ("What a shows.", 40, 30)
    shown = load_pictures(tmp_path / "figures", len(first.data) + 5)
    assert [bool(picture.data) for picture in shown] == [True, False]
    assert second.text == shown[1].text
    monkeypatch.setattr(page, "MAX_BYTES", 1)
    text = site(tmp_path, [make_record()], {}, [], []).html()
    assert "Not held by this page, for its size. What a shows." in text
    assert '<a href="../figures/b.png">b.png</a>' in text


def test_too_many_rows_are_told_more_briefly_and_none_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = sample_site(tmp_path).html()
    monkeypatch.setattr(page, "MAX_BYTES", 1)
    brief = sample_site(tmp_path).html()
    assert brief.count("<tbody data-h") == whole.count("<tbody data-h") > 10
    assert "They are too many for this page to tell run by run" in brief
    assert "They are too many" not in whole
    assert "<table class=runs>" in whole
    assert "<table class=runs>" not in brief
    links = re.compile(r"\.\./records/[^\"]+\.json")
    assert set(links.findall(brief)) == set(links.findall(whole))


def test_a_file_that_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"no picture")
    with pytest.raises(InputError) as caught:
        load_pictures(tmp_path, 1000)
    assert str(caught.value) == (
        f"{tmp_path / 'x.png'}: is no PNG picture, or a damaged one; remove it, or draw it again with "
        "`suite report --figures`"
    )


def test_settings_are_told_once_and_neighbours_by_their_difference() -> None:
    settings = Settings()
    first, second, third = (make_record(head=h, recipe={"batch_size": b}) for h, b in (("a", 12), ("b", 12), ("a", 24)))
    one, two, three = (dict(zip("dehrm", settings.of(record), strict=True)) for record in (first, second, third))
    assert one["r"] is two["r"]
    assert one["h"] is not two["h"]
    assert one["m"] is three["m"]
    assert (three["r"].base, three["r"].lines) == (one["r"].id, (("recipe.batch_size", "24"),))
    assert dict(one["r"].lines)["recipe.batch_size"] == "12"
    assert [block.id for block in settings.by_kind()["recipe"]] == ["r1", "r2"]


def contrast(one: str, other: str) -> float:
    """WCAG 2.2: the ratio of the relative luminances."""

    def luminance(colour: str) -> float:
        digits = "".join(2 * digit for digit in colour[1:]) if len(colour) == 4 else colour[1:]
        parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_text_is_legible_in_light_and_dark(dark: bool) -> None:
    css = (files("suite.report.site") / "page.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{3,6})", blocks[dark]))
    pairs = [(ink, ground) for ink in ("ink", "soft", "link") for ground in ("ground", "panel")]
    pairs += [(name, f"{name}-ground") for name in ("good", "bad", "open", "none", "better")]
    assert {
        pair: round(contrast(*(colours[name] for name in pair)), 2)
        for pair in pairs
        if contrast(*(colours[name] for name in pair)) < 4.5
    } == {}
