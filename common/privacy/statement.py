"""What an epsilon means for one patient, in words and in odds."""

import math

NEIGHBOURS = "adding or removing all data of one patient"


def odds(epsilon: float) -> float:
    """Give the factor e^ε by which any conclusion about a patient becomes at most more, or less, likely through him."""
    return math.exp(epsilon)


def largest_true_positive_rate(epsilon: float, delta: float, false_positive_rate: float) -> float:
    """Give the most patients that a membership test can find at a rate of false alarms.

    min(e^ε·FPR + δ, 1 − e^−ε·(1 − δ − FPR)), both sides of (ε, δ)-indistinguishability (Kairouz, Oh, Viswanath 2015).
    """
    up = math.exp(min(epsilon, 700.0)) * false_positive_rate + delta
    down = 1 - math.exp(-epsilon) * (1 - delta - false_positive_rate)
    return min(1.0, up, down)


def statement(epsilon: float, delta: float, accountant: str) -> str:
    """Say it in plain language."""
    if epsilon == 0:
        return "Nothing about any patient has left this site."
    if math.isinf(epsilon):
        return "Something left this site without noise: for its patients there is no bound on what can be concluded."
    caught = largest_true_positive_rate(epsilon, delta, 0.05)
    return (
        f"Epsilon {epsilon:.3g} at delta {delta:g}, for {NEIGHBOURS}, by {accountant.upper()}. Whatever anybody "
        f"concludes about a patient from all that left this site, his data made it at most {odds(epsilon):.3g} times "
        f"as likely. Who tests whether a patient was among the data, and accepts 5 % false alarms, finds at most "
        f"{caught:.1%} of those who were (5 % would be guessing)."
    )
