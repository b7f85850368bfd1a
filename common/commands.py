"""How every command of the platform ends: errors in three parts on stderr, an exit code that says which kind."""

import functools
import os
import sys
from collections.abc import Callable
from importlib import metadata
from typing import ParamSpec, TypeVar

import typer

from common.errors import ConsiliumError

P = ParamSpec("P")
R = TypeVar("R")
INTERRUPTED = 130


def answering(command: Callable[P, R]) -> Callable[P, R]:
    """Wrap a command: a user's error becomes its text and its exit code, without a traceback; so does Ctrl-C (130)."""

    @functools.wraps(command)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            result = command(*args, **kwargs)
            sys.stdout.flush()
            return result
        except ConsiliumError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            typer.echo("stopped.", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # Whoever read our output has left. Python would complain once more when it flushes at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None

    return call


def show_version(wanted: bool) -> None:
    """Print the version and stop."""
    if wanted:
        typer.echo(f"consilium {metadata.version('consilium-fl')}")
        raise typer.Exit
