"""How many sites must live so that a server that lies about who lives opens no smaller sum than an honest one.

Of each other site a site opens one share: of its self mask if it is said to live, of its mask key if it is said to have
dropped. Telling different sites different things, a server can strip some sites' vectors of their masks with everybody
else and be left with the sum of a few. With signed survivors honest sites only ever open one story. Without, the shares
that the lie needs are counted here, and enough sites must live that there are too few of them.

Source: ours (docs/reference/secure-aggregation.md); that 2t > n + c is not enough by itself was found by playing it.
"""

from functools import lru_cache


@lru_cache(maxsize=1024)
def fewest_alive(sites: int, colluders: int, threshold: int, fewest: int, signed: bool) -> int:
    """Give the least number of living sites at which every sum that can be opened hides max(t, fewest) − c honest ones.

    Args:
        sites: n, the whole cohort.
        colluders: c, sites that give the server every share they hold.
        threshold: t, the shares that open a secret; 2t > n + c.
        fewest: Of fewer sites no sum is opened.
        signed: Whether survivors are signed before anything is opened; then max(t, fewest) will do.
    """
    promised = max(threshold, fewest)
    if signed:
        return promised
    low, high = promised, sites  # when all must live, no site can be called dropped
    while low < high:
        middle = (low + high) // 2
        if _holds(sites, colluders, threshold, promised - colluders, middle):
            high = middle
        else:
            low = middle + 1
    return low


def _holds(sites: int, colluders: int, threshold: int, honest: int, alive: int) -> bool:
    return not any(
        _can_isolate(sites, colluders, threshold, alive, few, seen)
        for few in range(1, honest)
        for seen in range(alive, sites + 1)
    )


def _can_isolate(sites: int, colluders: int, threshold: int, alive: int, few: int, seen: int) -> bool:
    """Say whether shares might suffice to be left with `few` honest sites that were shown a set of `seen` sites.

    The server must open the mask key of each other honest site of that set, which takes t − c shares of honest sites
    who were told that it dropped; nobody believes it of himself, and of more than (set − alive).
    """
    helping = min(colluders, seen - few)
    others = seen - helping - few
    outside = sites - colluders - few - others
    most = sites - alive
    shares = few * min(others, seen - alive) + outside * min(others, most) + others * min(max(0, others - 1), most)
    return shares >= others * (threshold - colluders)
