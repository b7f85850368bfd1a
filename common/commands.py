"""How every command of the platform ends: errors in three parts on stderr, an exit code that says which kind."""

import functools
import sys
from collections.abc import Callable
from importlib import metadata
from typing import ParamSpec, TypeVar

import typer

from common.errors import ConsiliumError

P = ParamSpec("P")
R = TypeVar("R")


def answering(command: Callable[P, R]) -> Callable[P, R]:
    """Wrap a command: a user's error becomes its text and its exit code, without a traceback."""

    @functools.wraps(command)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except ConsiliumError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(error.exit_code) from None
        except BrokenPipeError:
            sys.stderr.close()
            raise typer.Exit(1) from None

    return call


def show_version(wanted: bool) -> None:
    """Print the version and stop."""
    if wanted:
        typer.echo(f"consilium {metadata.version('consilium-fl')}")
        raise typer.Exit
