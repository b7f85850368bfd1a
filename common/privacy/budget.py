"""What a site allows each of its patients to be charged, and what has been."""

from dataclasses import dataclass

from common.errors import ConfigError
from common.privacy.accountant import Accountant

LARGEST_EPSILON = 100.0


@dataclass(frozen=True, slots=True)
class Budget:
    """The most (epsilon, delta) that all releases together may cost one patient of the site.

    `trusts_server` lets a run leave the noise to the server, against whom these figures then say nothing.

    Raises:
        ConfigError: Epsilon is not within 0 and 100, or delta not within 0 and 1/1000.
    """

    epsilon: float
    delta: float
    trusts_server: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.epsilon <= LARGEST_EPSILON or not 0 < self.delta <= 1e-3:
            raise ConfigError(
                f"a budget has epsilon {self.epsilon:g} and delta {self.delta:g}. Allowed are 0 < epsilon ≤ 100 and "
                f"0 < delta ≤ 0.001, and delta below 1 / patients; correct it in the site's [budget]."
            )

    def check_patients(self, patients: int) -> None:
        """Refuse a delta that would let a whole patient's data through by chance.

        Raises:
            ConfigError: Delta is not below 1 / patients.
        """
        if patients and self.delta * patients >= 1:
            raise ConfigError(
                f"delta is {self.delta:g} and the site has {patients} patients. Allowed is less than 1 / patients, "
                f"{1 / patients:.1e}; lower `privacy.delta` or the site's [budget]."
            )


@dataclass(frozen=True, slots=True)
class Spend:
    """What has been charged: epsilon at the budget's delta, how many releases, and which accountant says so."""

    epsilon: float
    delta: float
    releases: int
    accountant: Accountant
