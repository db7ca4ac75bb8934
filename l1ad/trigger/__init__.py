"""The frozen integer program.

What to use when: `Trigger` to load, save and score; `FixedType` for the types; `build.ProgramBuilder` to write a
program of one's own; `widths.prove` for the proof that nothing overflows.
"""

from l1ad.trigger.fixed import FixedType
from l1ad.trigger.graph import Program
from l1ad.trigger.program import Trigger

__all__ = ["FixedType", "Program", "Trigger"]
