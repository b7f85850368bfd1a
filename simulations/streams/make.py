"""From the name of a stream to the stream."""

from common.errors import UnknownNameError
from simulations.corruptions import CORRUPTIONS
from simulations.corruptions.corrupt import SEVERITIES, refuse_elsewhere
from simulations.streams import STREAMS
from simulations.streams.base import Make
from simulations.streams.regimes import Corrupted

SOURCE_STREAMS = tuple(name for name in STREAMS if name == "no-shift" or name.startswith("prevalence-only"))
"""On the source sites' own test images: here nothing has to be adapted to, and nothing may be lost."""


def load_stream(name: str, modality: str = "") -> Make:
    """Find a stream: a name of STREAMS, or `CORRUPTION@SEVERITY`, as in `ghosting@3`.

    Raises:
        UnknownNameError: No such stream, corruption or severity.
        ConfigError: A modality is given in which the corruption does not happen.
    """
    corruption, mark, severity = name.partition("@")
    if not mark:
        found: Make = STREAMS.load(name)
        return found
    CORRUPTIONS.load(corruption)
    levels = [str(level) for level in SEVERITIES]
    if severity not in levels:
        raise UnknownNameError(f"severity of the stream {name!r}", severity, levels)
    if modality:
        refuse_elsewhere(corruption, modality)
    return Corrupted(corruption, int(severity))
