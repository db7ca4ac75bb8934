"""The shape of the house: imports point one way, and `import l1ad` stays light."""

from __future__ import annotations

import ast
import graphlib
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "l1ad"

#: What each room may import of ours, besides itself: data flows down the list.
MAY_IMPORT = {
    "errors": set(),
    "io": {"errors"},
    "configs": {"errors", "io"},
    "scores": {"errors"},
    "events": {"errors", "io", "configs"},
    "menu": {"events", "errors", "io", "configs"},
    "trigger": {"events", "scores", "errors", "io"},
    "config": {"events", "scores", "trigger", "errors", "io", "configs"},
    "baselines": {"events", "trigger", "scores", "errors"},
    "model": {"events", "scores", "trigger", "config", "errors", "io"},
    "train": {"events", "scores", "trigger", "config", "model", "errors", "io", "configs"},
    "scoring": {"events", "trigger", "rates", "scores", "errors", "io"},
    "backends": {"trigger", "events", "scores", "model", "errors", "io"},
    "validate": {"backends", "trigger", "events", "scores", "model", "errors", "io"},
    "rates": {"trigger", "events", "scores", "menu", "errors", "io", "configs"},
    "search": {"trigger", "events", "scores", "rates", "model", "errors", "io", "configs"},
    "report": {"rates", "search", "trigger", "events", "scores", "menu", "baselines", "backends", "errors", "io"},
}
#: Files that join two rooms: freezing reads trained models and writes programs.
MAY_ALSO_IMPORT = {"trigger/freeze.py": {"model", "config"}}
#: Methods that are there for convenience and import late what builds on their class.
LOOKS_UP = {("l1ad.events.store", "l1ad.events.readers"), ("l1ad.menu.seeds", "l1ad.menu.evaluate")}
#: Where TensorFlow may be imported at the top of a file: nowhere; inside functions only in these rooms.
TENSORFLOW_ROOMS = {"model", "train", "trigger", "backends", "search"}
HEAVY = {"tensorflow", "tf_keras", "keras", "qkeras", "hls4ml", "tensorflow_model_optimization", "sklearn", "numba"}
#: Files that exist to hold a heavy import, and are themselves imported late.
BEHIND_ITS_OWN_MODULE = {"events/simulate/kernel.py": {"numba"}, "search/softdrop.py": {"numba"}}


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def room(path: Path) -> str:
    part = path.relative_to(PACKAGE).parts[0]
    return part.removesuffix(".py")


def imported(tree: ast.AST, *, top_only: bool = False):
    nodes = tree.body if top_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            if node.module == "l1ad":
                yield from (f"l1ad.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(("path", "tree"), list(modules()), ids=lambda v: v.stem if isinstance(v, Path) else "")
def test_imports_point_one_way(path, tree):
    here = room(path)
    if here not in MAY_IMPORT:  # the top (cli, workflow, __init__) may use all
        return
    for name in imported(tree):
        parts = name.split(".")
        if parts[0] != "l1ad" or len(parts) < 2 or parts[1] in (here, "Events", "Trigger", "__version__"):
            continue
        allowed = MAY_IMPORT[here] | MAY_ALSO_IMPORT.get(path.relative_to(PACKAGE).as_posix(), set())
        assert parts[1] in allowed, f"{path.relative_to(PACKAGE)} imports {name}"


def test_no_module_imports_what_imports_it():
    """Late imports count: they hide a circle, they do not open it."""
    trees = {".".join(("l1ad", *path.relative_to(PACKAGE).with_suffix("").parts)): tree for path, tree in modules()}
    trees = {name.removesuffix(".__init__"): tree for name, tree in trees.items()}
    edges = {}
    for name, tree in trees.items():
        for_types = {id(n) for block in ast.walk(tree) if isinstance(block, ast.If) and "TYPE_CHECKING" in
                     ast.unparse(block.test) for n in ast.walk(block)}  # fmt: skip
        found = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and id(node) not in for_types:
                found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
            elif isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
        # A name that is no module stands for its package; a package for its modules is not a circle of its own.
        edges[name] = {f for f in found & set(trees) if f != name and not name.startswith(f + ".")}
        edges[name] -= {b for a, b in LOOKS_UP if a == name}
    try:
        graphlib.TopologicalSorter(edges).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


@pytest.mark.parametrize(("path", "tree"), list(modules()), ids=lambda v: v.stem if isinstance(v, Path) else "")
def test_heavy_packages_are_imported_late(path, tree):
    top = {name.split(".")[0] for name in imported(tree, top_only=True)}
    found = top & HEAVY - BEHIND_ITS_OWN_MODULE.get(path.relative_to(PACKAGE).as_posix(), set())
    assert not found, f"{path.relative_to(PACKAGE)} imports {found} at the top"


def test_nobody_imports_the_command_line():
    for path, tree in modules():
        if room(path) != "cli":
            assert not any(name.startswith("l1ad.cli") for name in imported(tree)), path


def test_import_is_light():
    code = (
        "import sys, l1ad, l1ad.cli; l1ad.Events, l1ad.Trigger;"
        "heavy = {'tensorflow', 'tf_keras', 'keras', 'qkeras', 'hls4ml', 'sklearn', 'scipy', 'matplotlib', 'uproot',"
        " 'awkward', 'pyarrow', 'plotly', 'numba', 'pandas'} & set(sys.modules);"
        "print(sorted(heavy)); sys.exit(bool(heavy))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    "name",
    ["numpy", "h5py", "pydantic", "yaml", "typer", "rich", "scipy", "uproot", "awkward", "pyarrow", "matplotlib",
     "mplhep", "plotly"],
)  # fmt: skip
def test_every_dependency_imports(name):
    importlib.import_module(name)


def test_the_training_stack_imports_together():
    """QKeras, tfmot and hls4ml beside Keras 3: the combination that breaks most easily."""
    code = (
        "import os; os.environ['TF_USE_LEGACY_KERAS'] = '1'; os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3';"
        "import tensorflow as tf, qkeras, tensorflow_model_optimization as tfmot, hls4ml;"
        "layer = tfmot.sparsity.keras.prune_low_magnitude(qkeras.QDense(2, input_shape=(3,)));"
        "model = tf.keras.Sequential([layer]); print(model.count_params())"
    )
    result = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-800:]
