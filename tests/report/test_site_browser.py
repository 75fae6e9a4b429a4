"""The web page in a browser: sorting, filtering, unfolding, narrow screens, dark screens, paper, hostile records."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser, browser, find_browser
from site_factory import HOSTILE, hostile_site, sample_site

PATH = find_browser()
pytestmark = pytest.mark.skipif(PATH is None, reason="no Chromium here: the web page is not tested in a browser")

ROWS = "[...document.querySelectorAll('#results table.rows > tbody:not(.floor)')]"
SHOWN = f"{ROWS}.filter((row) => row.offsetParent)"
TABLE = "document.querySelector('#results table.rows:has(> tbody[data-p=yang2018])')"


@pytest.fixture(scope="module")
def tab() -> Iterator[Browser]:
    assert PATH is not None
    with browser(PATH) as found:
        yield found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    (folder / "index.html").write_text(sample_site(folder).html(), encoding="utf-8")
    return folder / "index.html"


@pytest.fixture(autouse=True)
def desktop(request: pytest.FixtureRequest) -> None:
    if PATH is not None:
        request.getfixturevalue("tab").screen(1280)


def column(tab: Browser, title: str) -> list[str]:
    return tab.evaluate(  # type: ignore[no-any-return]
        f"(() => {{ const table = {TABLE}; const place = [...table.tHead.rows[0].cells].findIndex("
        f"(cell) => cell.textContent === '{title}'); "
        "return [...table.tBodies].filter((body) => !body.classList.contains('floor'))"
        ".map((body) => body.rows[0].cells[place].textContent); })()"
    )


def header(title: str) -> str:
    return f"[...{TABLE}.tHead.rows[0].cells].find((cell) => cell.textContent === '{title}')"


def test_a_column_is_sorted_by_a_click_and_what_is_missing_comes_last(tab: Browser, page: Path) -> None:
    tab.open(page)
    before = column(tab, "ours test")
    tab.evaluate(f"{header('ours test')}.querySelector('button').click()")
    rising = column(tab, "ours test")
    assert sorted(rising) == sorted(before)
    known = [float(text.split()[0]) for text in rising if text != "-"]
    assert known == sorted(known)
    assert len(set(known)) > 2
    assert rising[len(known) :] == ["-"] * (len(before) - len(known))
    assert before != rising
    assert tab.evaluate(f"{header('ours test')}.getAttribute('aria-sort')") == "ascending"
    tab.evaluate(f"{header('ours test')}.querySelector('button').click()")
    falling = column(tab, "ours test")
    assert [float(text.split()[0]) for text in falling if text != "-"] == sorted(known, reverse=True)
    assert falling[len(known) :] == rising[len(known) :], "what is missing stays last"
    assert tab.evaluate(f"{header('ours test')}.getAttribute('aria-sort')") == "descending"
    tab.evaluate(f"{header('ours test')}.querySelector('button').click()")
    assert column(tab, "ours test") == before
    assert tab.evaluate(f"{header('ours test')}.hasAttribute('aria-sort')") is False


def test_counts_in_millions_are_sorted_among_exact_ones(tab: Browser, page: Path) -> None:
    tab.open(page)
    tab.evaluate(f"{header('parameters')}.querySelector('button').click()")
    shown = [text for text in column(tab, "parameters") if text != "-"]
    sizes = [float(text[:-1]) * 1e6 if text.endswith("M") else float(text.replace(",", "")) for text in shown]
    assert sizes == sorted(sizes)
    assert any(text.endswith("M") for text in shown)
    assert any("," in text for text in shown)


def test_the_keyboard_sorts_and_unfolds(tab: Browser, page: Path) -> None:
    tab.open(page)
    tab.evaluate(f"{header('verdict')}.querySelector('button').focus()")
    tab.key("Enter", "\r")
    assert tab.evaluate(f"{header('verdict')}.getAttribute('aria-sort')") == "ascending"
    outline = tab.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    tab.evaluate(f"{TABLE}.querySelector('tr.more summary').focus()")
    tab.key("Enter", "\r")
    assert tab.evaluate(f"{TABLE}.querySelector('tr.more details').open") is True


def test_words_and_choices_filter_and_the_address_keeps_them(tab: Browser, page: Path) -> None:
    tab.open(page)
    total = tab.evaluate(f"{ROWS}.length")
    assert tab.evaluate("document.getElementById('count').textContent") == f"{total} rows"
    tab.evaluate(
        "document.getElementById('dataset').value = 'ptb'; document.getElementById('verdict').value = 'reproduced'"
    )
    tab.evaluate("document.getElementById('q').value = 'MoS'")
    tab.evaluate("document.getElementById('controls').dispatchEvent(new Event('input'))")
    tab.until("location.hash !== ''")
    assert tab.evaluate("location.hash") == "#q=MoS&dataset=ptb&verdict=reproduced"
    names = tab.evaluate(f"{SHOWN}.map((row) => row.dataset.v + ' ' + row.dataset.h)")
    assert names == ["reproduced mos-15"]
    assert tab.evaluate("document.getElementById('count').textContent") == f"1 of {total} rows, in 1 table"
    # Sent to somebody, it shows the same.
    tab.open(page, "#q=MoS&dataset=ptb&verdict=reproduced&sort=s1t.1.descending")
    assert tab.evaluate(f"{SHOWN}.map((row) => row.dataset.v + ' ' + row.dataset.h)") == names
    assert tab.evaluate("document.getElementById('dataset').value") == "ptb"
    tab.evaluate("document.querySelector('#controls button').click()")
    tab.until(f"{SHOWN}.length > 2")
    assert tab.evaluate("document.getElementById('q').value + document.getElementById('dataset').value") == ""
    assert tab.evaluate("document.getElementById('nothing').hidden") is True


def test_nothing_found_is_said_and_a_foreign_address_changes_nothing(tab: Browser, page: Path) -> None:
    tab.open(page, "#q=no-such-word-anywhere")
    assert tab.evaluate(f"{SHOWN}.length") == 0
    assert tab.evaluate("document.getElementById('nothing').offsetParent !== null") is True
    tab.open(page, "#dataset=nowhere&sort=controls.0.ascending_s1t.99.ascending_x&verdict=%3Cb%3E")
    assert tab.evaluate("document.getElementById('nothing').hidden") is True
    assert tab.complaints() == []


@pytest.mark.parametrize("mark", ["partial", "single-seed", "packed", "stale", "short", "smoke"])
def test_marks_are_words_and_can_be_chosen(tab: Browser, page: Path, mark: str) -> None:
    tab.open(page, f"#mark={mark}")
    said = tab.evaluate(f"{SHOWN}.map((row) => row.querySelector('.mark.{mark}').textContent)")
    assert said
    assert all(text.startswith(mark.replace("-", " ")) for text in said)


def test_a_row_unfolds_to_runs_settings_deviations_and_command(tab: Browser, page: Path) -> None:
    tab.open(page, "#q=mos-15&verdict=reproduced")
    details = f"{SHOWN}[0].querySelector('details')"
    tab.evaluate(f"{details}.open = true")
    tab.until(f"{details}.querySelectorAll('.setting').length > 0")
    titles = tab.evaluate(
        f"[...{details}.querySelectorAll(':scope > .setting > summary')].map((one) => one.textContent)"
    )
    assert [title.split()[0] for title in titles] == [
        "deviation", "deviation", "dataset", "encoder", "head", "recipe", "environment",
    ]  # fmt: skip
    text = tab.evaluate(f"{details}.textContent")
    assert "Yang et al. 2018, table 1" in text
    assert "TF32 products." in text
    assert "versions.torch2.13.0" in text
    assert (
        "suite run mos-ptb --only dataset=ptb --only encoder=awd-lstm --only head=mos-15 --seed 1 --seed 2 --seed 3"
        in text
    )
    links = tab.evaluate(f"[...{details}.querySelectorAll('table.runs a')].map((one) => one.getAttribute('href'))")
    assert len(links) == 3
    assert all(link.startswith("../records/mos-ptb--ptb--awd-lstm--mos-15--s") for link in links)
    # An address of a block at the end opens what it lies in.
    tab.open(page, "#r1")
    assert tab.evaluate("document.getElementById('r1').open") is True


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_no_page_is_wider_than_its_screen(tab: Browser, page: Path, width: int) -> None:
    tab.screen(width)
    tab.open(page)
    tab.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    tab.until("document.querySelectorAll('tr.more .setting').length > 0")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    cells = "[...document.querySelectorAll('table.rows > tbody > tr:first-child > *')]"
    spilt = "(one) => one.offsetParent && one.scrollWidth > one.clientWidth + 1"
    assert tab.evaluate(f"{cells}.filter({spilt}).map((one) => one.textContent)") == []
    if width < 600:
        label = "getComputedStyle(document.querySelector('td[data-n]'), '::before').content"
        assert tab.evaluate(label) == '"ours valid"'


def test_dark_screens_and_paper(tab: Browser, page: Path) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    tab.screen(1280)
    tab.open(page)
    assert tab.evaluate(ground) == "rgb(255, 255, 255)"
    tab.screen(1280, dark=True)
    assert tab.evaluate(ground) == "rgb(20, 23, 27)"
    tab.screen(1280, dark=True, media="print")
    assert tab.evaluate(ground) == "rgb(255, 255, 255)"
    assert tab.evaluate("getComputedStyle(document.getElementById('controls')).display") == "none"
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert tab.evaluate("document.querySelectorAll('details:not([open])').length") == 0
    tab.evaluate("dispatchEvent(new Event('afterprint'))")
    assert tab.evaluate("document.querySelectorAll('details:not([open])').length") > 0


def test_without_scripts_the_page_is_whole(tab: Browser, page: Path) -> None:
    tab.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        tab.open(page)
        assert tab.evaluate("document.getElementById('controls').hidden") is True
        assert tab.evaluate("document.querySelectorAll('thead button').length") == 0
        assert tab.evaluate(f"{ROWS}.filter((row) => row.hidden).length") == 0
    finally:
        tab.call("Emulation.setScriptExecutionDisabled", value=False)


def test_what_records_say_stays_text(tab: Browser, tmp_path: Path) -> None:
    path = tmp_path / "index.html"
    path.write_text(hostile_site(tmp_path).html(), encoding="utf-8")
    tab.open(path)
    assert tab.requests() == [path.as_uri()], "no network, and nothing beside the page"
    assert tab.complaints() == []
    tab.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    tab.until("document.querySelectorAll('tr.more .setting').length > 0")
    assert tab.evaluate("typeof window.pwned") == "undefined"
    assert tab.evaluate(
        "[document.scripts.length, document.querySelectorAll('style, link, iframe, object, embed').length]"
    ) == [1, 1]
    handlers = (
        "[...document.querySelectorAll('*')].filter((e) => [...e.attributes].some((a) => a.name.startsWith('on')))"
    )
    assert tab.evaluate(f"{handlers}.length") == 0
    links = tab.evaluate("[...document.querySelectorAll('a')].map((link) => link.getAttribute('href'))")
    assert [link for link in links if not link.startswith(("#", "../")) and link != ".."] == []
    assert (
        tab.evaluate(
            "[...document.images].every((one) => one.src.startsWith('data:image/png;base64,') && one.complete)"
        )
        is True
    )
    shown = tab.evaluate("document.body.textContent")
    assert shown.count(HOSTILE) > 5
    assert tab.evaluate("document.images[0].alt") == HOSTILE
    # The policy holds whatever gets into the page after all.
    tab.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.pwned=1\">')")
    tab.evaluate("new Promise((done) => setTimeout(done, 100))")
    assert tab.evaluate("typeof window.pwned") == "undefined"
    assert any("Content Security Policy" in text for text in tab.complaints())
