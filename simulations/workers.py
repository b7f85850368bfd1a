"""Worker processes on this machine: forked once, each answers one byte string after another.

Forking keeps the images that the parent has read in shared memory, and costs no import. A killed worker is replaced and
its request tried once more. Workers ignore Ctrl-C: the parent decides when to stop.
"""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Protocol, Self

import torch

import common.errors
from common.allocator import keep_freed_memory
from common.errors import ConsiliumError

Emit = Callable[[bytes], None]
Handle = Callable[[bytes, Emit], bytes]
Answer = bytes | Exception | None
ANSWER, EVENT, FAILED = b"A", b"E", b"F"
TRIES = 2
ORPHAN_CHECK_SECONDS = 2.0
DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux, the only system whose processes we fork


class WorkerError(ConsiliumError):
    """A worker process failed in a way that is no error of the user's.

    What to do: see the text; lower `workers` if memory ran out.
    """

    code = "worker"


def default_workers() -> int:
    """Give one worker per core; none where processes cannot be forked safely."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else 0


class Requests(Protocol):
    """What to answer, by number. A request is taken when a worker is free for it, so it may be made only then."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> bytes: ...


class Workers:
    """A pool. With `count` 0 the handler runs in this process, one request after another."""

    def __init__(self, count: int, handle: Handle) -> None:
        self._handle = handle
        # One thread each: two processes of one thread are faster than one of two, a busy machine does not slow them by
        # spinning, and results do not depend on the number of cores.
        torch.set_num_threads(1)
        self._idle = [_Worker(handle) for _ in range(count)]
        self._inline = count == 0

    def run(
        self, requests: Requests, timeout: float, on_event: Callable[[int, bytes], None] | None = None
    ) -> list[Answer]:
        """Answer all requests, in their order: bytes, the error raised, or None when `timeout` seconds were over."""
        tell = on_event or (lambda index, event: None)
        if self._inline:
            indices = range(len(requests))
            return [_attempt(self._handle, requests[index], _teller(tell, index)) for index in indices]
        self._answers: list[Answer] = [None] * len(requests)
        todo = [(index, TRIES) for index in reversed(range(len(requests)))]
        busy: dict[Connection, _Job] = {}
        deadline = time.monotonic() + timeout
        try:
            while todo or busy:
                for (index, tries), worker in self._pairs(todo):
                    busy[worker.send(requests[index])] = _Job(worker, index, tries - 1)
                ready = wait(list(busy), max(0.0, deadline - time.monotonic()))
                if not ready:
                    break
                for pipe in [pipe for pipe in busy if pipe in ready]:
                    if self._take(busy[pipe], tell):
                        job = busy.pop(pipe)
                        todo += [(job.index, job.tries)] if self._answers[job.index] is None else []
        finally:  # the time ran out, or an observer raised: what these workers would still say is not wanted
            for job in busy.values():
                self._replace(job.worker)
        return self._answers

    def _pairs(self, todo: list[tuple[int, int]]) -> Iterator[tuple[tuple[int, int], "_Worker"]]:
        while todo and self._idle:
            yield todo.pop(), self._idle.pop()

    def _take(self, job: "_Job", tell: Callable[[int, bytes], None]) -> bool:
        """Take what a worker sent; true when it is free again (no answer then means: try once more)."""
        tag, content = job.worker.receive()
        if tag == EVENT:
            tell(job.index, content)
            return False
        if tag:
            self._idle.append(job.worker)
            self._answers[job.index] = content if tag == ANSWER else _error(content)
            return True
        self._replace(job.worker)
        if not job.tries:
            self._answers[job.index] = WorkerError(f"a worker process was killed {TRIES} times on one request.")
        return True

    def close(self) -> None:
        """End the workers."""
        for worker in self._idle:
            worker.close()
        self._idle = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _replace(self, worker: "_Worker") -> None:
        worker.close()
        self._idle.append(_Worker(self._handle))


@dataclass(frozen=True, slots=True)
class _Job:
    """A request that a worker is busy with."""

    worker: "_Worker"
    index: int
    tries: int


class _Worker:
    """One process and the pipe to it."""

    def __init__(self, handle: Handle) -> None:
        context = multiprocessing.get_context("fork")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._pipe, handle), daemon=True)
        self._process.start()
        theirs.close()

    def send(self, request: bytes) -> Connection:
        """Hand over a request; a worker found dead shows when its answer is awaited."""
        with contextlib.suppress(OSError):
            self._pipe.send_bytes(request)
        return self._pipe

    def receive(self) -> tuple[bytes, bytes]:
        """Take the next answer or event; an empty tag says that the process is dead."""
        try:
            content = self._pipe.recv_bytes()
        except (EOFError, OSError):
            return b"", b""
        return content[:1], content[1:]

    def close(self) -> None:
        """End the process, at once when it is busy."""
        self._pipe.close()
        self._process.join(timeout=0.2)
        if self._process.is_alive():
            self._process.kill()
        self._process.join()
        self._process.close()


def _serve(pipe: Connection, parents: Connection, handle: Handle) -> None:
    parents.close()
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A worker that outlived a killed parent would write into a run folder that a resume already works in.
    ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
    parent = os.getppid()
    while True:
        try:
            while not pipe.poll(ORPHAN_CHECK_SECONDS):
                if os.getppid() != parent:  # the parent was killed; sisters hold its pipe open, so no end is seen
                    return
            request = pipe.recv_bytes()
        except (EOFError, OSError):
            return
        answer = _attempt(handle, request, lambda event: pipe.send_bytes(EVENT + event))
        try:
            pipe.send_bytes(ANSWER + answer if isinstance(answer, bytes) else FAILED + _text(answer))
        except OSError:  # the parent has closed its end: nobody waits for this answer
            return


def _attempt(handle: Handle, request: bytes, emit: Emit) -> bytes | Exception:
    try:
        return handle(request, emit)
    except Exception as error:
        return error


def _teller(tell: Callable[[int, bytes], None], index: int) -> Emit:
    return lambda event: tell(index, event)


def _text(error: Exception) -> bytes:
    return f"{type(error).__name__}\n{error}".encode()


def _error(content: bytes) -> Exception:
    """Make the error anew: the platform's own classes stay what they were, with their exit codes."""
    name, _, text = content.decode().partition("\n")
    kind = getattr(common.errors, name, None)
    if isinstance(kind, type) and issubclass(kind, ConsiliumError):
        error = kind.__new__(kind)
        Exception.__init__(error, text)
        return error
    return WorkerError(f"a worker process failed with {name}: {text}")
