"""The arrows between the rooms of the house: read from every import statement, lazy ones included."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import suite

PACKAGE = Path(suite.__file__).parent
LONGEST_MODULE = 350

# room -> the rooms it may import, itself aside. A number travels downwards; nothing looks back up.
ARROWS: dict[str, set[str]] = {
    "errors": set(),
    "progress": set(),
    "spec": {"errors"},
    "records": {"errors", "spec"},
    "report": {"errors", "spec", "records"},
    "data": {"errors", "spec", "records.files"},
    "models": {"errors", "spec"},
    "measurement": {"records.record"},
    "stages": {"spec", "data", "models", "measurement"},
    "evaluation": {"errors", "spec", "data", "models", "stages"},
    "training": {"errors", "spec", "data", "models", "stages", "evaluation", "progress", "records.files"},
    "runner": {"errors", "spec", "data", "models", "stages", "measurement", "training", "records", "progress"},
    "gate": {
        "errors", "spec", "data", "models", "measurement", "stages", "training", "runner", "records", "report",
        "progress",
    },
    "verbs": {"errors", "spec", "data", "models", "measurement", "runner", "records", "report", "gate", "progress"},
    "cli": {"errors", "verbs"},
}  # fmt: skip
# Modules that share a room: one head, one op; one attempt, many attempts.
ROOM_OF = {"kernels": "models", "attempt": "runner", "trained": "runner", "__main__": "cli", "arguments": "cli"}

# What answers at once must not import these, however far down.
QUICK_ROOMS = ("cli", "spec", "records", "report")
QUICK_VERBS = (
    "suite.verbs", "suite.verbs.look", "suite.verbs.common", "suite.verbs.query", "suite.verbs.compare",
    "suite.verbs.export", "suite.verbs.registry",
)  # fmt: skip
# Comparing needs no tensors; only what measures does.
QUICK_MODULES = tuple(
    f"suite.gate.{name}" for name in ("baseline", "findings", "measured", "pairs", "table", "tolerance")
)
HEAVY = {"torch", "mlflow"}


class Import(NamedTuple):
    """What one statement imports: modules of the package by full name, others by their first; lazy if not at once."""

    target: str
    lazy: bool
    line: int


Modules = dict[str, list[Import]]


def read_modules(package: Path) -> Modules:
    """The imports of every module of a package, by dotted name; a package goes by its folder's name."""
    files = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return {
        name: list(_imports(ast.parse(path.read_text()), package.name, files.keys())) for name, path in files.items()
    }


def _imports(tree: ast.Module, package: str, known: object) -> Iterator[Import]:
    lazy: set[ast.AST] = set()
    for node in ast.walk(tree):
        for_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if for_types or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            lazy.update(ast.walk(node))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where an arrow goes"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            # `from suite.data import corpora` is an arrow to the module, `... import name` to the one that has it.
            targets = [name if name in known else str(node.module) for name in inner]  # type: ignore[operator]
        else:
            continue
        for target in dict.fromkeys(targets):
            yield Import(target if target.split(".")[0] == package else target.split(".")[0], node in lazy, node.lineno)


def room(module: str) -> str:
    """The room of ``suite.x.y``; the package itself stands for the front door and belongs to none."""
    first = [*module.split("."), ""][1]
    return ROOM_OF.get(first, first)


def wrong_arrows(modules: Modules, package: str, arrows: dict[str, set[str]]) -> list[str]:
    found = []
    for name, imports in modules.items():
        for imported in imports:
            here, there = room(name), room(imported.target)
            if not imported.target.startswith(f"{package}.") or not here or here == there:
                continue
            inside = imported.target.removeprefix(f"{package}.")
            if there not in arrows[here] and inside not in arrows[here]:
                found.append(f"{name}:{imported.line} imports {imported.target}")
    return found


def cycles(modules: Modules) -> list[str]:
    """Chains of imports that come back to where they began, lazy imports included."""
    done: set[str] = set()
    found: list[str] = []

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            found.append(" -> ".join([*path[path.index(name) :], name]))
        elif name not in done:
            for imported in modules[name]:
                if imported.target in modules:
                    visit(imported.target, (*path, name))
            done.add(name)

    for name in modules:
        visit(name, ())
    return found


def heavy_imports(modules: Modules, start: str, heavy: set[str]) -> list[str]:
    """How importing ``start`` comes to import something heavy: the chain, or nothing."""
    queue, seen = [(start,)], {start}
    found = []
    while queue:
        path = queue.pop(0)
        parents = [path[-1].rsplit(".", up)[0] for up in range(1, path[-1].count(".") + 1)]
        targets = [imported.target for imported in modules[path[-1]] if not imported.lazy]
        for target in [*targets, *parents]:
            if target in heavy:
                found.append(" -> ".join([*path, target]))
            elif target in modules and target not in seen:
                seen.add(target)
                queue.append((*path, target))
    return found


@pytest.fixture(scope="module")
def modules() -> Modules:
    return read_modules(PACKAGE)


def test_rooms_import_only_what_stands_before_them(modules: Modules) -> None:
    assert {room(name) for name in modules} - {""} == ARROWS.keys()
    assert wrong_arrows(modules, "suite", ARROWS) == []


def test_the_front_door_opens_on_the_registry_alone(modules: Modules) -> None:
    assert {imported.target for imported in modules["suite"]} == {"suite.spec.components"}


def test_the_arrows_themselves_have_no_cycle() -> None:
    rooms = {name: [Import(target.split(".")[0], False, 0) for target in targets] for name, targets in ARROWS.items()}
    assert cycles(rooms) == []


def test_no_module_imports_itself_by_way_of_others(modules: Modules) -> None:
    assert cycles(modules) == []


def test_what_must_answer_at_once_imports_nothing_heavy(modules: Modules) -> None:
    quick = [name for name in modules if room(name) in QUICK_ROOMS or name in (*QUICK_VERBS, *QUICK_MODULES)]
    assert {*QUICK_VERBS, *QUICK_MODULES} < set(quick)
    assert [chain for name in quick for chain in heavy_imports(modules, name, HEAVY)] == []


def test_rooms_without_tensors_never_import_torch(modules: Modules) -> None:
    rooms = ("spec", "records", "report")
    found = [n for n, imports in modules.items() if room(n) in rooms and any(i.target == "torch" for i in imports)]
    assert found == []


def test_mlflow_has_one_importer(modules: Modules) -> None:
    assert [n for n, imports in modules.items() if any(i.target == "mlflow" for i in imports)] == [
        "suite.records.tracking"
    ]


def test_modules_stay_small() -> None:
    sizes = {path.relative_to(PACKAGE): len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {str(path): size for path, size in sizes.items() if size > LONGEST_MODULE} == {}


def test_a_planted_fault_of_each_kind_is_found(tmp_path: Path) -> None:
    files = {
        "__init__.py": "",
        "errors.py": "",
        "spec/__init__.py": "",
        "spec/a.py": "from house.spec import b\nfrom house.errors import x\nimport house.data.d\n",
        "spec/b.py": "def f():\n    import torch\n    from house.spec.a import y\n",
        "data/__init__.py": "import torch.nn\n",
        "data/d.py": "from mlflow.tracking import z\n",
    }
    for name, text in files.items():
        (tmp_path / "house" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "house" / name).write_text(text)
    house = read_modules(tmp_path / "house")
    arrows = {"errors": set[str](), "spec": {"errors"}, "data": {"errors", "spec"}}
    assert wrong_arrows(house, "house", arrows) == ["house.spec.a:3 imports house.data.d"]
    assert cycles(house) == ["house.spec.a -> house.spec.b -> house.spec.a"]
    assert heavy_imports(house, "house.spec.b", HEAVY) == [], "a lazy import is paid for when it is needed"
    assert heavy_imports(house, "house.spec.a", HEAVY) == [
        "house.spec.a -> house.data.d -> mlflow",
        "house.spec.a -> house.data.d -> house.data -> torch",
    ]
