"""Reads the imports of every room and holds the arrows between rooms, as STYLE.md draws them."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMPONENTS = ROOT / "components"

ALLOWED: dict[str, set[str]] = {
    "core": set(),
    "face": {"core"},
    "shards": {"core"},
    "model": {"core"},
    "portraits": {"core"},
    "prepare": {"core", "face", "model", "shards", "portraits"},
    "training": {"core", "model", "face", "shards"},
    "inference": {"core", "model", "face"},
    "evaluation": {"core", "inference", "face", "shards"},
    "registry": {"core", "inference"},
    "serving": {"core", "inference", "registry"},
    "page": {"core", "inference"},
}
PUBLIC_INNER = {"components.portraits.world"}  # a room within a room: the renderer without the base model
HEAVY_ROOMS = {"model", "training", "inference"}  # meaningless without torch: their public face may import it
ENGINES = {
    "torch",
    "ray",
    "diffusers",
    "transformers",
    "deepspeed",
    "mlflow",
    "onnxruntime",
    "insightface",
    "peft",
    "gradio",
}

ROOMS = sorted(path.name for path in COMPONENTS.iterdir() if (path / "__init__.py").is_file())
FILES = sorted(path for part in ("components", "flows") for path in (ROOT / part).rglob("*.py"))


def imports_of(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yields (dotted module, relative level) of every import, wherever it stands in the file."""
    for node in without_type_checks(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, 0
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "", node.level
            for alias in node.names:  # `from components import face` is an import of the room too
                if node.level == 0 and node.module == "components":
                    yield f"components.{alias.name}", 0


def without_type_checks(tree: ast.AST) -> Iterator[ast.AST]:
    """Walks the tree past `if TYPE_CHECKING`: naming a type in a signature imports nothing."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from without_type_checks(node)


def room_of(path: Path) -> str | None:
    relative = path.relative_to(ROOT)
    return relative.parts[1] if relative.parts[0] == "components" and len(relative.parts) > 2 else None


def faults_in(path: Path, source: str) -> list[str]:
    """Returns what is wrong with the imports of one file."""
    own, faults = room_of(path), []
    for module, level in imports_of(ast.parse(source)):
        parts = module.split(".")
        if level:
            faults.append(f"relative import of {'.' * level}{module}: imports are absolute")
        elif own and parts[0] == "flows":
            faults.append(f"{module}: components never import flows")
        elif own and parts[0] == "prefect":
            faults.append(f"{module}: components know nothing of Prefect")
        elif parts[0] == "components" and len(parts) > 1 and parts[1] != own:
            if own and parts[1] not in ALLOWED[own]:
                faults.append(f"{module}: no arrow from {own} to {parts[1]}")
            inner = len(parts) > 2 and not any(
                module == p or module.startswith(p + ".") for p in PUBLIC_INNER
            )
            if inner:
                faults.append(f"{module}: other rooms are imported from their public face alone")
    return faults


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_follow_the_arrows(path):
    assert faults_in(path, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("file", "line", "complaint"),
    [
        ("components/face/x.py", "from components.model import ModelConfig", "no arrow from face to model"),
        ("components/face/x.py", "import components.training", "no arrow from face to training"),
        ("components/face/x.py", "from components import training", "no arrow from face to training"),
        ("components/training/x.py", "from components.face.warp import warp_faces", "public face alone"),
        ("components/training/x.py", "import flows.config", "never import flows"),
        ("components/training/x.py", "def f():\n    from prefect import task", "nothing of Prefect"),
        ("components/training/x.py", "from .loop import step", "imports are absolute"),
        ("flows/x.py", "from components.face.detect import Face", "public face alone"),
    ],
)
def test_a_forbidden_import_is_seen(file, line, complaint):
    assert any(complaint in fault for fault in faults_in(ROOT / file, line))


def test_allowed_imports_pass():
    source = "from components.face import Face\nfrom components.portraits.world import render\nimport torch"
    assert faults_in(COMPONENTS / "prepare" / "x.py", source) == []
    assert faults_in(COMPONENTS / "training" / "x.py", "from components.training.loop import step") == []
    typed = (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from components.model import ModelConfig"
    )
    assert faults_in(COMPONENTS / "evaluation" / "x.py", typed) == []


def test_every_room_is_on_the_map():
    assert set(ROOMS) == set(ALLOWED)


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_every_room_has_the_same_grammar(room):
    folder = COMPONENTS / room
    missing = [name for name in ("__init__.py", "config.py", "README.md") if not (folder / name).is_file()]
    assert missing == [], f"{room} lacks {missing}"
    public = (folder / "__init__.py").read_text(encoding="utf-8")
    assert "__all__ = [" in public, f"{room} does not say what is public"


@pytest.mark.parametrize("room", sorted(set(ALLOWED) - HEAVY_ROOMS))
def test_public_faces_are_cheap(room):
    """Follows the imports that run when the room is imported, file by file, and finds no engine there."""
    assert sorted(engines_behind(COMPONENTS / room / "__init__.py")) == []


def engines_behind(start: Path) -> set[str]:
    """Returns the engines that importing a file loads, also through other files of ours."""
    seen: set[Path] = set()
    found: set[str] = set()
    todo = [start]
    while todo:
        path = todo.pop()
        if path in seen or not path.is_file() or room_of(path) in HEAVY_ROOMS:
            continue
        seen.add(path)
        for node in top_level(ast.parse(path.read_text(encoding="utf-8")).body):
            modules = (
                [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            )
            for module in modules:
                if module.split(".")[0] in ENGINES:
                    found.add(f"{module.split('.')[0]} by {path.relative_to(ROOT)}")
                below = ROOT.joinpath(*module.split("."))
                todo += [below.with_suffix(".py"), below / "__init__.py"]
    return found


def top_level(body: list[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yields the imports that run at import time: not those of functions or of `if TYPE_CHECKING`."""
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test):
            yield from top_level(node.body + node.orelse)
        elif isinstance(node, ast.Try | ast.With):
            yield from top_level(node.body)


READS_PICKLES = {"torch.load", "pickle.load", "pickle.loads", "cloudpickle.load", "joblib.load", "dill.load"}


def pickles_in(source: str) -> list[str]:
    """Returns the calls in a file that would run what a stranger has pickled."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [
        f"line {call.lineno}: {ast.unparse(call)}"
        for call in calls
        if ast.unparse(call.func) in READS_PICKLES
        or any(word.arg == "allow_pickle" and ast.unparse(word.value) != "False" for word in call.keywords)
    ]


def test_no_pickle_is_read():
    found = {path.name: pickles_in(path.read_text(encoding="utf-8")) for path in FILES}
    assert {name: faults for name, faults in found.items() if faults} == {}


def test_a_pickle_that_is_read_would_be_seen():
    reads = ["torch.load(path, weights_only=True)", "np.load(path, allow_pickle=True)"]
    assert [len(pickles_in(read)) for read in [*reads, "np.save(path, a, allow_pickle=False)"]] == [1, 1, 0]
