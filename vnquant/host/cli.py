"""The host's commands: those of every runtime, and those that start and watch runtimes.

Nothing heavy is imported at the top, docker included: ``vnquant --help`` must answer at once.
"""

from __future__ import annotations

import click

from vnquant.cli import cli as runtime

cli = click.Group(
    name=runtime.name,
    help=runtime.help,
    commands=dict(runtime.commands),
    params=list(runtime.params),
    context_settings=runtime.context_settings,
    callback=runtime.callback,
)
