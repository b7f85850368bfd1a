"""What a site keeps for itself between rounds: its own normalisation arrays, for the last rounds it took part in."""

from collections.abc import Iterable
from pathlib import Path

from common.arrays import Arrays, read_arrays, write_arrays

KEEP = 2


class Store:
    """Arrays by round in one folder. Two rounds are kept, so that a run resumed one round earlier finds its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, round_: int, arrays: Arrays) -> None:
        """Keep the arrays of a round; what later rounds left behind before a resume is dropped."""
        write_arrays(self._path(round_), arrays, {"round": str(round_)})
        rounds = self._rounds()
        kept = [number for number in rounds if number <= round_][-KEEP:]
        for other in set(rounds) - set(kept):
            self._path(other).unlink(missing_ok=True)

    def load(self, up_to: int) -> Arrays:
        """Give the newest arrays of a round not after `up_to`; empty before the first."""
        rounds = [number for number in self._rounds() if number <= up_to]
        return read_arrays(self._path(max(rounds)))[0] if rounds else {}

    def _path(self, round_: int) -> Path:
        return self.folder / f"local-{round_:06d}.safetensors"

    def _rounds(self) -> list[int]:
        return sorted(int(path.stem.removeprefix("local-")) for path in _files(self.folder))


def _files(folder: Path) -> Iterable[Path]:
    return folder.glob("local-*.safetensors")
