"""l1ad: anomaly detection in a Level-1 trigger.

What to use when: `Events` holds crossings in hardware integers and reads every format; `Trigger` is the frozen integer
program that scores them; everything else is a step between the two, on the command line as ``l1ad STEP --help``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Events", "Trigger", "__version__"]

if TYPE_CHECKING:
    from l1ad.events.store import Events
    from l1ad.trigger.program import Trigger


def __getattr__(name: str) -> Any:
    # Imported on first use, so that `import l1ad` stays quick.
    if name == "Events":
        from l1ad.events.store import Events

        return Events
    if name == "Trigger":
        from l1ad.trigger.program import Trigger

        return Trigger
    raise AttributeError(f"module 'l1ad' has no attribute {name!r}")
