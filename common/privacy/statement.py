"""What an epsilon means for one patient, in words and in odds."""

import math
from decimal import ROUND_CEILING, Context

NEIGHBOURS = "adding or removing all data of one patient"
LARGEST = 700.0
"""Of an exponent, in doubles."""


def odds(epsilon: float) -> float:
    """Give the factor e^ε by which any conclusion about a patient becomes at most more, or less, likely through him."""
    return math.exp(epsilon) if epsilon < LARGEST else math.inf


def upwards(value: float, digits: int = 3) -> str:
    """Write a figure with so many digits; what is shown is never less than what it is."""
    return f"{float(Context(digits, ROUND_CEILING).create_decimal_from_float(value)):.{digits}g}"


def largest_true_positive_rate(epsilon: float, delta: float, false_positive_rate: float) -> float:
    """Give the most patients that a membership test can find at a rate of false alarms.

    min(e^ε·FPR + δ, 1 − e^−ε·(1 − δ − FPR)), both sides of (ε, δ)-indistinguishability (Kairouz, Oh, Viswanath 2015).
    """
    up = math.exp(min(epsilon, LARGEST)) * false_positive_rate + delta
    down = 1 - math.exp(-epsilon) * (1 - delta - false_positive_rate)
    return min(1.0, up, down)


def statement(epsilon: float, delta: float, accountant: str) -> str:
    """Say it in plain language, of what left; an epsilon of 0 is much noise and not nothing."""
    if math.isinf(epsilon):
        return "Something left this site without noise: for its patients there is no bound on what can be concluded."
    caught = largest_true_positive_rate(epsilon, delta, 0.05)
    return (
        f"Epsilon {upwards(epsilon)} at delta {delta:g}, for {NEIGHBOURS}, by {accountant.upper()}. Whatever anybody "
        f"concludes about a patient from all that left this site, his data made it at most {upwards(odds(epsilon))} "
        f"times as likely. Who tests whether a patient was among the data, and accepts 5 % false alarms, finds at most "
        f"{math.ceil(1000 * caught) / 10:.1f}% of those who were (5 % would be guessing)."
    )
