"""Fast emulation of a trigger, bit-exact with the golden program.

What to use when: `Trigger.score` for everything, it comes here by itself; `score` with ``out=`` to fill an array that
exists already; `supported_levels` to know what ``isa=`` may be; `build.build` for the shared library itself.

Three paths give the same integers: a kernel of generated C (`codegen`, `build`), numpy with products that are proven
exact (`exact`), and the golden program for events with words that their bits cannot hold.
"""

from l1ad.trigger.emulate.build import cache_folder, supported_levels
from l1ad.trigger.emulate.codegen import LEVELS, Unsupported, generate
from l1ad.trigger.emulate.exact import ExactProgram
from l1ad.trigger.emulate.run import SlowEmulationWarning, score

__all__ = [
    "LEVELS",
    "ExactProgram",
    "SlowEmulationWarning",
    "Unsupported",
    "cache_folder",
    "generate",
    "score",
    "supported_levels",
]
