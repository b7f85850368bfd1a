"""What a secure sum is about, and what a site insists on. Everything public is hashed into every key and signature."""

import math
import re
from dataclasses import dataclass

from common.errors import SecureAggregationError
from common.secagg.consistency import fewest_alive
from common.secagg.wire import digest, names

VERSION = b"consilium-secagg-2"
FEWEST = 3
"""Of two, each could subtract itself."""
SERVER_KEY = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """One secure sum.

    Args:
        run: The run's id.
        round: Its round.
        purpose: What is summed: "train" or "judge"; a round has one sum of each.
        attempt: Counts the tries at this round; a try never reuses a key.
        sites: The cohort.
        fewest: Of fewer sites no sum is opened.
        colluders: Sites that may work together with the server and still learn no more than the sum.
        ring_bits: 32 or 64.
        length: Of the vector.
        layout: Digest of what stands where in it.
        model: Digest of the arrays that the sites work on and of all else that they are asked (`common/subject.py`), so
            that nobody is asked something of his own.
        server_key: The server's X25519 key for this sum, in hex. Vectors are tagged under what a site's own key, which
            it signed, and this one agree on.
        signed: Whether survivors are signed before anything is opened.
    """

    run: str
    round: int
    purpose: str
    attempt: int
    sites: tuple[str, ...]
    fewest: int
    colluders: int
    ring_bits: int
    length: int
    layout: str
    model: str
    server_key: str
    signed: bool = False

    def __post_init__(self) -> None:
        if self.ring_bits not in (32, 64):
            raise refusal("ring", f"the ring has {self.ring_bits} bits", "32 and 64")
        if (
            len(set(self.sites)) != len(self.sites)
            or len(self.sites) < max(FEWEST, self.fewest)
            or self.fewest < FEWEST
        ):
            raise refusal(
                "too-few-sites",
                f"{len(set(self.sites))} sites are to be summed and the least is {self.fewest}",
                f"at least {FEWEST} different ones, and no fewer than the least",
            )
        if not SERVER_KEY.fullmatch(self.server_key):
            raise refusal("malformed", "the server's key is not one", "64 hexadecimal digits")
        threshold(len(self.sites), self.colluders)

    @property
    def threshold(self) -> int:
        """The shares that open a secret: of the whole cohort, for whom a site hears of is the server's choice."""
        return threshold(len(self.sites), self.colluders)

    @property
    def least(self) -> int:
        """The sites that must live at every stage."""
        return fewest_alive(len(self.sites), self.colluders, self.threshold, max(FEWEST, self.fewest), self.signed)

    @property
    def context(self) -> bytes:
        """SHA-256 of everything above."""
        numbers = (self.round, self.attempt, self.fewest, self.colluders, self.ring_bits, self.length, self.signed)
        texts = (self.run, self.purpose, self.layout, self.model, self.server_key)
        fields = [VERSION, *(text.encode() for text in texts), *(str(int(each)).encode() for each in numbers)]
        return digest([*fields, digest(names(self.sites))])


def threshold(sites: int, colluders: int) -> int:
    """Give t, the shares that open a secret: max(3, ⌈2n/3⌉, ⌊(n + c)/2⌋ + 1).

    So 2t > n + c: a server that tells some sites that a site lives and others that it dropped never gets t shares of
    both its secrets, though c sites give it both. That alone does not keep it from a small sum: see `consistency`.

    Raises:
        SecureAggregationError: `colluders`: fewer than two honest sites would be left, whose sum is no secret.
    """
    t = max(FEWEST, math.ceil(2 * sites / 3), (sites + colluders) // 2 + 1)
    if colluders < 0 or sites - colluders < 2 or t > sites:
        raise refusal("colluders", f"{colluders} of {sites} sites may collude", f"at most {max(0, sites - 2)}")
    return t


@dataclass(frozen=True, slots=True, kw_only=True)
class SitePolicy:
    """What a site insists on, from its own settings; a run can ask for more and never for less."""

    fewest: int = FEWEST
    colluders: int = 0
    rings: tuple[int, ...] = (32, 64)
    most_values: int = 1 << 31
    signed: bool = False

    def check(self, site: str, params: Params, layout: str, model: str) -> None:
        """Refuse a looser sum than this site allows, or one of something else than it holds.

        Raises:
            SecureAggregationError: `not-asked`, `too-few-sites`, `colluders`, `consistency`, `ring`, `too-long`,
                `layout` or `model`.
        """
        rules = (
            (site not in params.sites, "not-asked", f"the cohort does not name {site!r}", "only sites that it names"),
            (
                params.fewest < self.fewest,
                "too-few-sites",
                f"sums of {params.fewest} sites would be opened",
                f"{self.fewest} or more",
            ),
            (
                params.colluders < self.colluders,
                "colluders",
                f"{params.colluders} colluders are guarded against",
                f"{self.colluders} or more",
            ),
            (self.signed and not params.signed, "consistency", "survivors are not signed", "signed ones"),
            (
                params.ring_bits not in self.rings,
                "ring",
                f"the ring has {params.ring_bits} bits",
                ", ".join(map(str, self.rings)),
            ),
            (
                not 0 < params.length <= self.most_values,
                "too-long",
                f"the vector has {params.length} values",
                f"1 to {self.most_values}",
            ),
            (
                params.layout != layout,
                "layout",
                "the server lays the vector out otherwise than this site",
                "one layout for all",
            ),
            (params.model != model, "model", "what the sum is about is not what this site was asked", "one for all"),
        )
        for broken, name, found, allowed in rules:
            if broken:
                raise refusal(name, found, allowed)


def refusal(name: str, found: str, allowed: str) -> SecureAggregationError:
    """Make a refusal of a sum's terms."""
    return SecureAggregationError(
        name, f"secure aggregation: {found}. Allowed: {allowed}. Correct [secure-aggregation], or the site's policy."
    )
