"""The list of what bench/physics.py trains: every entry is a configuration that works, in a folder of its own."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from l1ad.config import RunConfig

BENCH = Path(__file__).resolve().parent.parent / "bench"


@pytest.fixture(scope="module")
def physics() -> ModuleType:
    if not BENCH.is_dir():
        pytest.skip("bench/ is not part of this installation")
    sys.path.insert(0, str(BENCH))
    try:
        spec = importlib.util.spec_from_file_location("bench_physics", BENCH / "physics.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(BENCH))
    return module


@pytest.mark.parametrize("quick", [False, True])
def test_every_try_is_a_configuration(physics: ModuleType, tmp_path: Path, quick: bool) -> None:
    tries = physics.read_tries(BENCH / "physics.yaml", tmp_path, [], quick=quick)
    folders = [one.folder for one in tries]
    assert len(set(folders)) == len(folders)
    for one in tries:
        config = RunConfig.of(one.config, where=one.name)
        assert config.name == one.folder.name
        assert config.data.sample == "bundled" or all(Path(path).is_file() for path in config.data.paths)
        assert config.training.epochs == 2 or not quick
    assert set(physics.QUICK) <= {one.group for one in tries}
    only = physics.read_tries(BENCH / "physics.yaml", tmp_path, ["best"], quick=False)
    assert [one.config["seed"] for one in only] == [1, 2, 3]


def test_published_configurations_are_among_them(physics: ModuleType, tmp_path: Path) -> None:
    names = {one.config["name"] for one in physics.read_tries(BENCH / "physics.yaml", tmp_path, [], quick=False)}
    published = {"axol1tl_v1", "axol1tl_v3", "axol1tl_v4", "axol1tl_v5"}
    published |= {f"adc2021_{kind}_{family}" for kind in ("dnn", "cnn") for family in ("vae", "ae")}
    assert published <= names


def test_another_checkout_asks_for_no_other_training(physics: ModuleType, tmp_path: Path) -> None:
    """Where the bundled files stand changes nothing, which files they are does; nor do notes and freezing count."""
    tries = {one.group: one for one in physics.read_tries(BENCH / "physics.yaml", tmp_path, [], quick=False)}
    config = RunConfig.of(tries["mse, weighted tails, mu2"].config)
    moved = config.data.model_copy(update={"paths": [f"/elsewhere/{Path(path).name}" for path in config.data.paths]})
    same = config.model_copy(update={"data": moved, "description": "another"})
    assert physics._what_is_trained(same) == physics._what_is_trained(config)
    fewer = config.data.model_copy(update={"paths": config.data.paths[:1]})
    assert physics._what_is_trained(config.model_copy(update={"data": fewer})) != physics._what_is_trained(config)
