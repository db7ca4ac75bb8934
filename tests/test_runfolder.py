"""Steps are run when and only when something they depend on has changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from l1ad.errors import InputError
from l1ad.runfolder import RunFolder, Step, select_steps


class Recipe:
    """Two steps on text files: `upper` reads outside.txt, `twice` reads what `upper` wrote."""

    def __init__(self, folder, outside):
        self.folder, self.outside, self.ran, self.times = folder, outside, [], 2

    def steps(self):
        def upper(note):
            note("working")
            self.ran.append("upper")
            (self.folder / "upper.txt").write_text(self.outside.read_text().upper())
            return "done"

        def twice(note):
            self.ran.append("twice")
            (self.folder / "twice.txt").write_text((self.folder / "upper.txt").read_text() * self.times)
            return "done"

        return (
            Step("upper", "", {}, (), (self.outside,), upper, lambda: ("upper.txt",)),
            Step("twice", "", {"times": self.times}, ("upper.txt",), (), twice, lambda: ("twice.txt",)),
        )

    def run(self, force=()):
        self.ran.clear()
        run = RunFolder(self.folder)
        with run.locked():
            return [run.execute(s, force=s.name in force, note=lambda _: None).state for s in self.steps()]


@pytest.fixture
def recipe(tmp_path):
    outside = tmp_path / "outside.txt"
    outside.write_text("a")
    return Recipe(tmp_path / "run", outside)


def test_second_run_does_nothing(recipe):
    assert recipe.run() == ["ran", "ran"]
    assert recipe.run() == ["unchanged", "unchanged"]
    assert recipe.ran == []


def test_changes_run_what_depends_on_them_and_nothing_else(recipe):
    recipe.run()
    recipe.times = 3
    assert recipe.run() == ["unchanged", "ran"]
    recipe.outside.write_text("b")
    assert recipe.run() == ["ran", "ran"]
    assert (recipe.folder / "twice.txt").read_text() == "BBB"
    # The same content again is no change, whatever the time stamps say.
    os.utime(recipe.outside, (1, 1))
    assert recipe.run() == ["unchanged", "unchanged"]


def test_a_lost_output_is_made_again(recipe):
    recipe.run()
    (recipe.folder / "twice.txt").unlink()
    assert recipe.run() == ["unchanged", "ran"]


def test_a_folder_of_shards_is_an_input_like_a_file(recipe):
    """The open data come as a folder an object: what lies below it counts."""
    shards = recipe.outside.with_name("shards")
    shards.mkdir()
    (shards / "0").write_text("a")
    steps = recipe.steps()
    outside = Step("upper", "", {}, (), (shards,), steps[0].run, steps[0].writes)

    def state():
        run = RunFolder(recipe.folder)
        with run.locked():
            return run.execute(outside, force=False, note=lambda _: None).state

    assert [state(), state()] == ["ran", "unchanged"]
    (shards / "0").write_text("b")
    assert [state(), state()] == ["ran", "unchanged"]


def test_what_a_killed_run_was_writing_is_removed(recipe):
    recipe.run()
    left = recipe.folder / ".twice.txt.1234-abcd.part"
    left.write_text("half")
    assert recipe.run() == ["unchanged", "unchanged"]
    assert not left.exists()


def test_force(recipe):
    recipe.run()
    assert recipe.run(force={"twice"}) == ["unchanged", "ran"]


def test_an_edited_artefact_is_refused_and_force_mends_it(recipe):
    recipe.run()
    (recipe.folder / "upper.txt").write_text("forged")
    with pytest.raises(InputError, match=r"upper\.txt.*--from upper"):
        recipe.run()
    assert recipe.run(force={"upper"}) == ["ran", "unchanged"]


def test_a_step_that_dies_is_run_again(recipe):
    recipe.run()
    recipe.times = 5
    steps = recipe.steps()

    def dies(note):
        raise KeyboardInterrupt

    run = RunFolder(recipe.folder)
    broken = Step("twice", "", {"times": 5}, ("upper.txt",), (), dies, lambda: ("twice.txt",))
    with pytest.raises(KeyboardInterrupt), run.locked():
        run.execute(steps[0], force=False, note=lambda _: None)
        run.execute(broken, force=False, note=lambda _: None)
    assert recipe.run() == ["unchanged", "ran"]
    assert (recipe.folder / "twice.txt").read_text() == "AAAAA"


def test_second_process_is_told_who_has_the_lock(tmp_path):
    code = (
        "import sys; from l1ad.runfolder import RunFolder\n"
        "from l1ad.errors import InputError\n"
        "try:\n"
        "    with RunFolder(sys.argv[1]).locked(): print('got it')\n"
        "except InputError as e: print(e)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    with RunFolder(tmp_path / "run").locked():
        refused = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"process {os.getpid()} on" in refused
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "got it\n"


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(InputError, match=r"file: folder: found a file of that name"),
        RunFolder(tmp_path / "file" / "run").locked(),
    ):
        pass


def test_manifest_of_another_version(recipe):
    recipe.run()
    path = recipe.folder / "manifest.json"
    value = json.loads(path.read_text())
    value["format_version"] = 99
    path.write_text(json.dumps(value))
    with pytest.raises(InputError, match="l1ad-run 99"):
        RunFolder(recipe.folder)


def test_from_and_until(recipe):
    steps = recipe.steps()
    assert select_steps(steps, first=None, last=None) == {"upper": False, "twice": False}
    assert select_steps(steps, first="twice", last=None) == {"upper": False, "twice": True}
    assert select_steps(steps, first=None, last="upper") == {"upper": False}
    with pytest.raises(InputError, match="one of upper, twice"):
        select_steps(steps, first="lower", last=None)
    with pytest.raises(InputError, match="later step"):
        select_steps(steps, first="twice", last="upper")
