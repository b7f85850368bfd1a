"""Run a command and account for its whole process tree: wall, CPU seconds, memory. Linux only."""

import ctypes
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

HERTZ = os.sysconf("SC_CLK_TCK")
PR_SET_CHILD_SUBREAPER = 36
POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Usage:
    """What a command took. `began` is on the clock of `time.time`; memory is the highest sum over all processes.

    PSS counts a page that processes share once.
    """

    began: float
    wall: float
    cpu: float
    pss_mib: float
    processes: int
    output: str


def measure(command: list[str], environment: dict[str, str], timeout: float = 1800) -> Usage:
    """Run `command` to its end and that of everything it started.

    CPU seconds are the larger of two counts, since neither sees all: what the kernel charged to children that were
    waited for, and what was last seen in /proc of each (Ray's daemons are waited for by nobody).

    Raises:
        RuntimeError: The command failed; its last words are in the message.
    """
    # Orphans (daemons) then become children of this process, so that they are seen and waited for.
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before = _waited()
    began = time.time()
    seen: dict[tuple[int, str], float] = {}
    pss, count = 0.0, 0
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as said:
        # A session of its own, as Ray gives its workers: Linux deals a busy machine's cores out by session.
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=said, start_new_session=True)
        try:
            while process.poll() is None:
                if time.time() - began > timeout:
                    raise RuntimeError(f"{command[1]} took more than {timeout:g} seconds")
                family = descendants(os.getpid())
                seen |= _cpu(family)
                pss, count = max(pss, memory_mib(family, "Pss")), max(count, len(family))
                time.sleep(POLL_SECONDS)
            wall = time.time() - began
        finally:
            process.kill()
            _reap(seen)
        output, errors = (file.read() for file in (out, said) if file.seek(0) == 0)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command[:2])} failed: {errors[-2000:]}")
    return Usage(began, wall, max(_waited() - before, sum(seen.values())), pss, count, output)


def descendants(root: int) -> list[int]:
    """Give the processes below `root`, not itself."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, todo = [], [root]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def memory_mib(family: list[int], kind: str) -> float:
    """Sum `Rss` or `Pss` over processes, MiB."""
    total = 0
    for number in family:
        try:
            lines = Path(f"/proc/{number}/smaps_rollup").read_text().splitlines()
        except OSError:  # it has just ended
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith(f"{kind}:"))
    return total / 1024


def _cpu(family: list[int]) -> dict[tuple[int, str], float]:
    """CPU seconds of each process itself, by number and birth, for numbers are used again."""
    stats = {number: fields for number in family if (fields := _stat(number))}
    return {(number, fields[19]): (int(fields[11]) + int(fields[12])) / HERTZ for number, fields in stats.items()}


def _stat(number: int) -> list[str]:
    """The fields of /proc/N/stat after the name, beginning with the state."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _waited() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _reap(seen: dict[tuple[int, str], float]) -> None:
    """Wait some seconds for what the command left behind, then end it; `seen` is brought up to date."""
    deadline = time.monotonic() + 10
    while family := descendants(os.getpid()):
        seen |= _cpu(family)
        if time.monotonic() > deadline:
            print(f"{len(family)} processes were left behind and are ended", file=sys.stderr)
            for number in family:
                os.kill(number, 9)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.1)
