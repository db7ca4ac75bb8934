"""The sample that comes with the package (made by ``scripts/make_sample.py``).

Natural zero bias is for training, the weighted one for rates and thresholds: they share no crossing, so that a
threshold is never read off events that the network saw. Layouts of other triggers have a few thousand crossings each:
to try a configuration with, not to quote from.
"""

from __future__ import annotations

from pathlib import Path

from l1ad.errors import InputError

FOLDER = Path(__file__).resolve().parent.parent / "data"


def bundled(stem: str) -> Path:
    """Path of one bundled file: ``zero_bias``, ``zero_bias_weighted`` or ``signal_NAME``.

    Raises
    ------
    InputError
        If it is not there; the message lists what is.
    """
    path = FOLDER / f"{stem}.h5"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in FOLDER.glob("*.h5"))) or "nothing is there"
        raise InputError("bundled sample", "name", stem, known)
    return path


#: How the files of a layout are called; those of the uGT words have no such part.
_LAYOUT_PARTS = {"cms_calo_regions": "_regions", "atlas_l1topo": "_l1topo"}


def zero_bias_stem(layout: str, *, weighted: bool = False) -> str:
    """The name of the bundled zero bias of a layout."""
    return f"zero_bias{_LAYOUT_PARTS.get(layout, '')}{'_weighted' * weighted}"


def bundled_zero_bias(layout: str, *, weighted: bool = False) -> Path:
    """Path of the bundled zero bias of a layout (adc2021 has the words of cms_ugt, and its file).

    Raises
    ------
    InputError
        If it is not there.
    """
    return bundled(zero_bias_stem(layout, weighted=weighted))


def bundled_signals() -> dict[str, Path]:
    """Path of each bundled signal by its name."""
    return {p.stem.removeprefix("signal_"): p for p in sorted(FOLDER.glob("signal_*.h5"))}
