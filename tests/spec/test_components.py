"""The registry: described without importing, built when asked, wrong names and options refused."""

# ruff: noqa: E501  # whole messages, one to a line

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from task_workspace import PLUGIN, Workspace

import suite
from suite.errors import InputError
from suite.spec import plugins as plugins_module
from suite.spec.components import REQUIRED, Plugins, create, describe, load, names, register, using
from suite.spec.plugins import PluginFile, locate
from suite.spec.run_spec import ComponentSpec
from suite.spec.signatures import module_path, read_signature


@pytest.fixture
def mine(workspace: Workspace) -> Plugins:
    return Plugins.of([locate("plugins/mine.py", Path())])


def test_describe_reads_summary_options_types_and_defaults(mine: Plugins) -> None:
    info = describe("encoder", "rnn", mine)
    assert (info.kind, info.name, info.target, info.summary) == (
        "encoder",
        "rnn",
        "plugins/mine.py:Rnn",
        "A recurrence.",
    )
    assert [(option.name, option.type, option.default) for option in info.options] == [
        ("hidden", "list of positive integers", [1150, 1150, 400]),
        ("drop", "number", 0.0),
        ("tied", "true or false", True),
        ("cap", "positive number or null", None),
    ]
    experts, pointwise = describe("head", "mix", mine).options
    assert (experts.default, pointwise.default, pointwise.nested) == (REQUIRED, {"name": "curve"}, "pointwise")
    assert [option.type for option in describe("dataset", "toy", mine).options] == [
        "positive integer",
        "number from 0 to 1",
        "one of 'word', 'char', 1",
    ]
    assert describe("stage", "fit", mine).summary == "Fit the model."


def test_describing_runs_nothing(workspace: Workspace) -> None:
    workspace.write(
        "plugins/loud.py",
        "raise SystemExit\nfrom suite import register\n" + 'x = 1\n@register("head", "loud")\nclass L:\n    """L."""\n',
    )
    loud = Plugins.of([locate("plugins/loud.py", Path())])
    assert describe("head", "loud", loud).summary == "L."


def test_create_builds_with_defaults_and_nested_components(mine: Plugins) -> None:
    rnn = create("encoder", {"name": "rnn", "drop": 1}, 50, plugins=mine)
    assert (rnn.vocabulary, rnn.hidden, rnn.drop) == (50, [1150, 1150, 400], 1.0)
    assert isinstance(rnn.drop, float)
    head = create(
        "head", ComponentSpec("mix", {"experts": 2, "pointwise": {"name": "curve", "inner": "curve"}}), plugins=mine
    )
    inner = {"name": "curve", "knots": 5, "shift": 0.0, "inner": None}
    assert head.pointwise == {"name": "curve", "knots": 5, "shift": 0.0, "inner": inner}
    assert create("stage", "fit", plugins=mine) == 1


def test_plugins_in_force_are_found_without_being_handed_over(mine: Plugins, messages: Callable[..., str]) -> None:
    with using(mine):
        assert load("head", "flat").__name__ == "Flat"
        assert create("pointwise", "curve").knots == 5
    assert messages(load, "head", "flat").startswith("unknown head 'flat'.")


def test_wrong_names_and_options(mine: Plugins, messages: Callable[..., str]) -> None:
    assert messages(describe, "head", "moss") == "unknown head 'moss'. Did you mean 'mos'? Allowed: moc, mos, softmax."
    assert messages(describe, "heads", "mos").startswith("unknown kind of component 'heads'. Did you mean 'head'?")
    assert messages(create, "head", {"name": "mix", "experts": True, "expert": 1}, plugins=mine).splitlines() == [
        "experts: expected a positive integer, got true",
        "expert: unknown key. Did you mean 'experts'?",
    ]
    assert names("head", mine) == ["softmax", "mos", "moc", "mix", "flat"]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_options_are_taken_or_refused_cleanly(value: object) -> None:
    for options in ({"name": "hidden-markov", "states": value}, {"name": value}, value):
        with contextlib.suppress(InputError):
            create("dataset", options)  # type: ignore[arg-type]


SIGNATURE = """
import numpy as np
from typing import Literal, Optional
from suite.spec.types import PositiveInt
LIMIT = 3
class A:
    def __init__(self, x, {options}): ...
"""


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("*, a: 'PositiveInt | None' = LIMIT", [("a", "positive integer or null", 3)]),
        ("*, a: Optional[int] = None", [("a", "integer or null", None)]),
        ("*, a: list[list[int]] = ((1, 2), ())", [("a", "list of lists of integers", [[1, 2], []])]),
        ("*, a: tuple[float, ...] = (1, 2)", [("a", "list of numbers", [1.0, 2.0])]),
        ("*, copy: int = -1, json: str = 'a'", [("copy", "integer", -1), ("json", "text", "a")]),
        ("*args, a: Literal[1, 'x'] = 1, **more", [("a", "one of 1, 'x'", 1)]),
        ("*, a: bool | Literal['x'] = True", [("a", "true or false or 'x'", True)]),
    ],
)
def test_signatures(options: str, expected: list[tuple[str, str, object]], tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(SIGNATURE.format(options=options))
    found = read_signature(tmp_path / "m.py", "A").options
    assert [(option.name, option.type, option.default) for option in found] == expected


ALLOWED = "Finite, NonNegativeFloat, NonNegativeInt, PointwiseOption, PositiveFloat, PositiveInt, Probability, bool, float, int, str, Literal[...], list[...] or X | None"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("*, a", "m.py:7:30: option 'a' of A: has no type; annotate it, for example with a type of suite.spec.types"),
        ("*, a: np.ndarray", f"m.py:7:33: option 'a' of A: np.ndarray is not a type of options; use {ALLOWED}"),
        ("*, a: dict[str, int]", "m.py:7:33: option 'a' of A: dict[str, int] is not a type of options"),
        (
            "*, a: int = np.pi",
            "m.py:7:39: option 'a' of A: the default must be a literal, or a module's constant that is one",
        ),
        ("*, a: int = 'x'", "m.py:7:39: option 'a' of A: the default 'x' is not an integer"),
        ("*, a: PositiveInt = True", "m.py:7:47: option 'a' of A: the default true is not a positive integer"),
        (
            "*, label: int",
            "m.py:7:30: option 'label' of A: 'label' has a meaning of its own in a task file; call it something else",
        ),
    ],
)
def test_signatures_nobody_can_read(
    options: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, messages: Callable[..., str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.py").write_text(SIGNATURE.format(options=options))
    assert messages(read_signature, Path("m.py"), "A") == expected


def test_a_base_class_of_the_suite_is_followed(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(
        "from suite.data.synthetic import Categorical\nclass Mine(Categorical):\n    '''M.'''\n"
    )
    names_ = [option.name for option in read_signature(tmp_path / "m.py", "Mine").options]
    assert names_ == [option.name for option in describe("dataset", "categorical").options]
    assert names_


def test_module_paths_are_found_without_importing() -> None:
    assert module_path("suite.spec.types") == Path(suite.__file__).parent / "spec/types.py"
    assert module_path("suite.spec") == Path(suite.__file__).parent / "spec/__init__.py"
    assert module_path("suite.none") is module_path("no_such_thing.x") is module_path("") is None


class TestPlugins:
    def test_collisions(self, workspace: Workspace, messages: Callable[..., str]) -> None:
        own = workspace.write("plugins/own.py", '@register("head", "mos")\nclass A: ...\n')
        assert (
            messages(PluginFile.read, "own", own)
            == "plugins/own.py:1:2: head 'mos' is one of the suite's own; choose another name"
        )
        files = [
            locate("plugins/mine.py", Path()),
            PluginFile.read("b.py", workspace.write("b.py", '@register("head", "flat")\nclass A: ...\n')),
        ]
        assert (
            messages(Plugins.of, files)
            == "b.py:1:2: head 'flat' is registered already at plugins/mine.py:52:2; choose another name"
        )
        assert list(Plugins.of([files[0], locate("./plugins/mine.py", Path())]).files) == ["plugins/mine.py"]

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("x = 1\n", 'p.py: registers nothing; put @register("head", "my-head") on a class'),
            ("x = (\n", "p.py:1:5: not valid Python: '(' was never closed"),
            (
                "N = 'a'\n@register('head', N)\nclass A: ...\n",
                'p.py:2:2: write @register("kind", "name") with two literal strings; the file is read without running it',
            ),
            (
                "@suite.register('haed', 'a')\nclass A: ...\n",
                "p.py:1:2: unknown kind of component 'haed'. Did you mean 'head'? Allowed: dataset, encoder, head, pointwise, stage.",
            ),
            (
                "@register('head', 'a b')\nclass A: ...\n",
                "p.py:1:2: component name 'a b': use letters, digits, '-', '_', '.' and '+'",
            ),
        ],
    )
    def test_refused(self, text: str, expected: str, workspace: Workspace, messages: Callable[..., str]) -> None:
        assert messages(PluginFile.read, "p.py", workspace.write("p.py", text)) == expected

    def test_a_plugin_that_raises(self, workspace: Workspace, messages: Callable[..., str]) -> None:
        workspace.write("p.py", "from suite import register\n@register('head', 'a')\nclass A: ...\n1 / 0\n")
        plugins = Plugins.of([locate("p.py", Path())])
        before = set(sys.modules)
        assert messages(load, "head", "a", plugins) == "p.py: cannot be imported: ZeroDivisionError: division by zero"
        assert set(sys.modules) == before

    def test_a_plugin_that_changed_since_it_was_planned(
        self, workspace: Workspace, messages: Callable[..., str]
    ) -> None:
        # A content of its own: another test may have imported the shared one, which is then rightly used.
        workspace.write("plugins/mine.py", PLUGIN + "# planned\n")
        plugins = Plugins.of([locate("plugins/mine.py", Path())])
        workspace.write("plugins/mine.py", PLUGIN + "# changed\n")
        text = "plugins/mine.py: changed since the runs were planned; start again"
        assert messages(load, "head", "flat", plugins) == text
        file = plugins.files["plugins/mine.py"]
        assert messages(Plugins.from_paths, {file.name: str(file.path)}, {file.name: file.sha256}) == text

    def test_two_tasks_may_have_different_plugins_of_one_name(self, workspace: Workspace) -> None:
        for folder in "ab":
            workspace.write(
                f"{folder}/p.py",
                f"from suite import register\n@register('head', 'h')\nclass H:\n    place = '{folder}'\n",
            )
        places = [load("head", "h", Plugins.of([locate("p.py", Path(folder))])).place for folder in "ab"]
        assert places == ["a", "b"]

    def test_a_dotted_module_is_a_plugin(self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
        workspace.write("lib/their_heads/__init__.py", "")
        workspace.write(
            "lib/their_heads/extra.py",
            "from suite import register\n@register('head', 'theirs')\nclass T:\n    '''T.'''\n",
        )
        monkeypatch.syspath_prepend(str(workspace.root / "lib"))
        task = workspace.task(workspace.changed(plugins="[../plugins/mine.py, their_heads.extra]", heads="theirs"))
        assert load("head", "theirs", task.plugins).__module__ == "their_heads.extra"

    def test_installed_packages_announce_components(
        self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, messages: Callable[..., str]
    ) -> None:
        workspace.write(
            "site/announced.py", "from suite import register\n@register('head', 'announced')\nclass T:\n    '''T.'''\n"
        )
        info = "site/pack-1.dist-info"
        workspace.write(f"{info}/METADATA", "Metadata-Version: 2.1\nName: pack\nVersion: 1\n")
        workspace.write(f"{info}/entry_points.txt", "[suite.components]\nx = announced\n")
        monkeypatch.syspath_prepend(str(workspace.root / "site"))
        assert workspace.task(workspace.changed(heads="announced")).heads[0].label == "announced"
        workspace.write(f"{info}/entry_points.txt", "[suite.components]\nx = gone_module\n")
        text = "pack announces components in 'gone_module', which does not exist; reinstall it"
        assert messages(plugins_module.installed) == text


class TestRegister:
    @pytest.fixture(autouse=True)
    def clean(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(plugins_module, "_runtime", {})

    def test_takes_effect_at_once(self) -> None:
        register("pointwise", "quick")(Quick)
        assert "quick" in names("pointwise")
        assert [option.name for option in describe("pointwise", "quick").options] == ["speed"]
        assert create("pointwise", {"name": "quick", "speed": 3}).speed == 3
        register("pointwise", "quick")(Quick)

    def test_collisions(self, messages: Callable[..., str]) -> None:
        register("pointwise", "quick")(Quick)
        assert (
            messages(register("pointwise", "quick"), Other)
            == f"pointwise 'quick' is registered already by {Quick.__module__}; choose another name"
        )
        assert (
            messages(register("pointwise", "identity"), Quick)
            == "pointwise 'identity' is one of the suite's own; choose another name"
        )


class Quick:
    """Quick."""

    def __init__(self, *, speed: int = 1) -> None:
        self.speed = speed


class Other:
    """Other."""
