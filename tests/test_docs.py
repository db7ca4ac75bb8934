"""The Python examples of the README and the docs run."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "docs").rglob("*.md"))


def blocks(path: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("path", [p for p in PAGES if blocks(p)], ids=lambda p: p.stem)
def test_examples_run(path, capsys):
    """All blocks of a page in order, in one namespace; their assertions are the test."""
    namespace: dict[str, object] = {}
    source = "\n".join(blocks(path))
    assert "assert" in source
    exec(compile(source, str(path), "exec"), namespace)


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in PAGES:
        assert page.relative_to(ROOT / "docs").as_posix() in navigation


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """A function that builds a copy of the documentation, changed by its argument; warnings are errors."""
    if importlib.util.find_spec("mkdocs") is None:
        pytest.skip("mkdocs is missing: pip install 'l1ad[docs]'")

    def run(change=lambda folder: None):
        folder = tmp_path_factory.mktemp("site")
        shutil.copytree(ROOT / "docs", folder / "docs")
        (folder / "scripts").mkdir()
        shutil.copy(ROOT / "scripts" / "docstrings.py", folder / "scripts")
        # The API reference is read from the sources, which stay where they are.
        text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").replace("paths: [.]", f"paths: ['{ROOT}']")
        (folder / "mkdocs.yml").write_text(text, encoding="utf-8")
        change(folder)
        command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
        environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
        result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        return result, folder / "site"

    return run


def test_documentation_builds_with_its_reference(build):
    result, site = build()
    assert result.returncode == 0, result.stdout + result.stderr
    for page in (ROOT / "docs" / "reference").glob("*.md"):
        modules = re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        text = (site / "reference" / page.stem / "index.html").read_text(encoding="utf-8")
        for module in modules:
            assert f'id="{module}"' in text
        assert not modules or text.count("doc-object") > 10
        # What is left of a doctest or a table of parameters that was taken for text.
        assert "<blockquote>" not in text
        assert not re.search(r"<h\d[^>]*>(Parameters|Raises|Attributes)", text)
    listed = (site / "reference" / "trigger" / "index.html").read_text(encoding="utf-8")
    assert re.search(r"golden</code></b>.*?bool.*?use the reference evaluation", listed, re.DOTALL)


def test_a_broken_link_fails_the_build(build):
    def spoil(folder):
        with open(folder / "docs" / "index.md", "a", encoding="utf-8") as stream:
            stream.write("\n[nowhere](nowhere.md)\n")

    result, _ = build(spoil)
    assert result.returncode != 0
    assert "nowhere.md" in result.stdout + result.stderr
