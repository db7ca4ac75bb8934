"""Several thresholds of one trigger: their names, the prescales for a budget, and the lines of a menu."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from l1ad.errors import InputError
from l1ad.rates.thresholds import Threshold, rate_label

#: Names of a ladder of five, from the highest rate to the lowest, as menus have them.
LADDER = ("VLoose", "Loose", "Nominal", "Tight", "VTight")
#: Largest prescale that is proposed.
MAX_PRESCALE = 1_000_000


def parse_rates(text: str) -> dict[str, float]:
    """Names and targets in Hz from ``0.25,1,5,10`` (kHz) or ``Tight=1,Loose=5``.

    >>> parse_rates("0.25,Loose=5")
    {'0p25kHz': 250.0, 'Loose': 5000.0}

    Raises
    ------
    InputError
        If a part is not a number above 0, or a name appears twice.
    """
    result: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.strip().rpartition("=")
        try:
            value = float(number) * 1e3
        except ValueError:
            raise InputError("--rate", "target", part.strip() or "nothing", "a number of kHz, or NAME=kHz") from None
        if not (math.isfinite(value) and value > 0):
            raise InputError("--rate", "target", part.strip(), "a number of kHz above 0")
        label = name.strip() or rate_label(value)
        if label in result:
            raise InputError("--rate", "name", f"{label} twice", "each once")
        result[label] = value
    return result


def ladder_rates(rates_hz: Sequence[float]) -> dict[str, float]:
    """The names of `LADDER` for five rates, the highest first.

    Raises
    ------
    InputError
        If there are not five different rates.
    """
    if len(set(rates_hz)) != len(LADDER):
        raise InputError("ladder", "rates", f"{len(set(rates_hz))} different rates", f"{len(LADDER)}")
    return dict(zip(LADDER, sorted(rates_hz, reverse=True)))


def combined_rate(rates_hz: Sequence[float], prescales: Sequence[int]) -> float:
    """Rate of the OR of seeds on one score, Hz, after their prescales.

    Parameters
    ----------
    rates_hz : rate of each seed before its prescale. Seeds on one score are nested: whatever passes a tighter one
        passes every looser one.
    prescales : of each seed, 0 for off.

    An event between two thresholds passes all the looser ones and is kept by each with chance 1/p, so that the rate of
    that band counts 1 - prod(1 - 1/p).
    """
    order = sorted(range(len(rates_hz)), key=lambda i: -rates_hz[i])
    total, lost = 0.0, 1.0
    for position, i in enumerate(order):
        lost *= 1.0 - (1.0 / prescales[i] if prescales[i] else 0.0)
        tighter = rates_hz[order[position + 1]] if position + 1 < len(order) else 0.0
        total += (rates_hz[i] - tighter) * (1.0 - lost)
    return total


def check_budget(budget_hz: float) -> None:
    """Check that a budget can be kept.

    Raises
    ------
    InputError
        If it is not a finite number above 0.
    """
    if not (math.isfinite(budget_hz) and budget_hz > 0):
        raise InputError("ladder", "budget", f"{budget_hz} Hz", "a number above 0")


def prescales_for_budget(rates_hz: Mapping[str, float], budget_hz: float) -> dict[str, int]:
    """Prescales with which the OR of nested seeds stays within a budget.

    From the tightest seed on, each gets the smallest prescale with which the OR of what has been given so far keeps to
    its part of the budget: what is left, divided equally among the seeds that still wait, except that a seed may run
    unprescaled whenever the whole budget allows. A seed that would need more than `MAX_PRESCALE` is switched off (0).

    Raises
    ------
    InputError
        If the budget is not a number above 0.
    """
    check_budget(budget_hz)
    names = sorted(rates_hz, key=lambda name: rates_hz[name])
    chosen: dict[str, int] = {}

    def rate_with(name: str, prescale: int) -> float:
        tried = {**chosen, name: prescale}
        return combined_rate([rates_hz[key] for key in tried], list(tried.values()))

    for position, name in enumerate(names):
        if rate_with(name, 1) <= budget_hz:
            chosen[name] = 1
            continue
        spent = combined_rate([rates_hz[key] for key in chosen], list(chosen.values()))
        limit = spent + (budget_hz - spent) / (len(names) - position)
        low, high = 2, MAX_PRESCALE + 1
        while low < high:
            middle = (low + high) // 2
            if rate_with(name, middle) <= limit:
                high = middle
            else:
                low = middle + 1
        chosen[name] = low if low <= MAX_PRESCALE else 0
    return {name: chosen[name] for name in rates_hz}


def menu_fragment(
    thresholds: Sequence[Threshold],
    *,
    trigger_name: str,
    trigger_hash: str,
    prescales: Mapping[str, int] | None = None,
    prefix: str = "L1_",
) -> str:
    """Lines for a menu (YAML): a seed each with its integer, the hash of the trigger it belongs to, and its rate."""
    lines = [
        "# Anomaly seeds: they fire at and above the integer (LSB 1/16 of the score), for this trigger and no other.",
        f"trigger: {trigger_name}",
        f"trigger_hash: {trigger_hash}",
        "seeds:",
    ]
    for item in thresholds:
        rate = item.rate
        low, high = rate.interval_68
        lines += [
            f"  - name: {prefix}{trigger_name}_{item.name}",
            f"    threshold: {item.threshold}",
            f"    prescale: {1 if prescales is None else prescales[item.name]}",
            f"    # {item.kind} rate {rate.hz / 1e3:.3f} kHz [{low / 1e3:.3f}, {high / 1e3:.3f}] before the prescale",
        ]
    return "\n".join(lines) + "\n"
