"""Level-1 seeds as data.

What to use when: `load_menu("run3_lite")` or `load_menu("my.yaml")` for a menu of seeds with cuts, `Menu.from_names`
for one that only names decisions the data already carries, `Menu.evaluate(events)` for the decision of each seed,
`add_decisions` to keep the decisions with the events.
"""

from l1ad.menu.evaluate import MenuDecision, add_decisions
from l1ad.menu.seeds import Condition, Leg, Menu, Pair, Range, Seed, load_menu

__all__ = ["Condition", "Leg", "Menu", "MenuDecision", "Pair", "Range", "Seed", "add_decisions", "load_menu"]
