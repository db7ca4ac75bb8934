"""Fast emulation of a trigger, bit-exact with the golden program.

What to use when: `Trigger.score` for everything, it comes here by itself; `score` with ``out=`` to fill an array that
exists already; `prepare` to compile before the first event comes; `supported_levels` to know what ``isa=`` may be;
`build.build` for the shared library itself.

Three paths give the same integers: a kernel of generated C (`codegen`, `build`), numpy with products that are proven
exact (`exact`), and the golden program for events with words that their bits cannot hold.
"""

from l1ad.trigger.emulate.build import cache_folder, supported_levels
from l1ad.trigger.emulate.codegen import generate
from l1ad.trigger.emulate.exact import ExactProgram
from l1ad.trigger.emulate.ranges import Unsupported
from l1ad.trigger.emulate.run import COMPILE_EVENTS, SlowEmulationWarning, prepare, score
from l1ad.trigger.emulate.writer import LEVELS

__all__ = [
    "COMPILE_EVENTS",
    "LEVELS",
    "ExactProgram",
    "SlowEmulationWarning",
    "Unsupported",
    "cache_folder",
    "generate",
    "prepare",
    "score",
    "supported_levels",
]
