"""The firmware texts are found in a checkout and in an installed package, and filled in without remainder."""

from __future__ import annotations

import subprocess
import sys

import pytest

from l1ad.backends import templates
from l1ad.errors import InputError


def test_every_text_is_found_in_the_checkout() -> None:
    for name in ("cpp/program.h", "cmssw/model.cpp", "hls/build.tcl", "vendor/place_and_route.tcl"):
        assert templates.read(name)
    with pytest.raises(InputError, match="cmssw/nothing"):
        templates.read("cmssw/nothing")


def test_an_installed_package_has_its_own(tmp_path, monkeypatch) -> None:
    # No pyproject.toml beside the package: a folder called firmware there is somebody else's.
    (tmp_path / "firmware").mkdir()
    package = tmp_path / "l1ad"
    monkeypatch.setattr(templates, "_PACKAGE", package)
    with pytest.raises(InputError, match="firmware templates"):
        templates.folder()
    shared = package / "_share" / "firmware"
    shared.mkdir(parents=True)
    assert templates.folder() == shared


def test_placeholders_and_values_must_match() -> None:
    assert templates.fill("@A@ @B_2@ a@b.c @a@", a=1, b_2="@A@") == "1 @A@ a@b.c @a@"
    with pytest.raises(InputError, match="placeholders"):
        templates.fill("@A@")
    with pytest.raises(InputError, match="placeholders"):
        templates.fill("@A@", a=1, b=2)


def test_the_back_ends_do_not_import_tensorflow() -> None:
    code = (
        "import sys, l1ad.backends.hls, l1ad.backends.cmssw, l1ad.backends.vendor\n"
        "sys.exit(', '.join({'tensorflow', 'tf_keras', 'hls4ml', 'qkeras'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
