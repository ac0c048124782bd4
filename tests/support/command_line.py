"""Command lines that somebody wrote down: understood by the real command, and not run."""

from collections.abc import Sequence

import typer.main

from api.cli import app


def understand(words: Sequence[str]) -> None:
    """Raises UsageError where ``stillroom`` followed by ``words`` would."""
    name, command, rest = "stillroom", typer.main.get_command(app), list(words)
    while hasattr(command, "resolve_command") and rest:
        context = typer.Context(command, info_name=name)
        found, command, rest = command.resolve_command(context, rest)
        name = found or name
    command.make_context(name, rest)
