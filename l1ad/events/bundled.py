"""The sample that comes with the package (made by ``scripts/make_sample.py``).

Natural zero bias is for training, the weighted one for rates and thresholds: they share no crossing, so that a
threshold is never read off events that the network saw.
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


def bundled_signals() -> dict[str, Path]:
    """Path of each bundled signal by its name."""
    return {p.stem.removeprefix("signal_"): p for p in sorted(FOLDER.glob("signal_*.h5"))}
