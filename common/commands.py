"""How every command line begins and ends: `--version`; errors in three parts on stderr, an exit code for each kind."""

import functools
import os
import sys
from collections.abc import Callable
from importlib import metadata
from typing import Annotated, ParamSpec, TypeVar

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


def command_line(name: str, purpose: str) -> typer.Typer:
    """Make a command line with `--help` and `--version`; its commands are added by the caller."""
    app = typer.Typer(
        name=name,
        no_args_is_help=True,
        rich_markup_mode="markdown",
        add_completion=False,
        pretty_exceptions_enable=False,
    )

    @app.callback(help=purpose)
    def begin(
        version: Annotated[
            bool, typer.Option("--version", help="Print the version.", callback=show_version, is_eager=True)
        ] = False,
    ) -> None:
        """Take the options that stand before a command."""

    return app
