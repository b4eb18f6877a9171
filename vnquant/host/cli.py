"""The host's commands: those of every runtime, and those that start and watch runtimes.

Nothing heavy is imported at the top, docker included: ``vnquant --help`` must answer at once.
"""

from __future__ import annotations

import click

from vnquant.cli import cli as runtime
from vnquant.host.cli_cycle import jobs, notify
from vnquant.host.cli_image import image
from vnquant.host.cli_launch import colab, doctor, logs, status, stop, train
from vnquant.host.cli_schedule import schedule
from vnquant.host.cli_sync import publish, sync

cli = click.Group(
    name=runtime.name,
    help=runtime.help,
    commands=dict(runtime.commands),
    params=list(runtime.params),
    context_settings=runtime.context_settings,
    callback=runtime.callback,
)
STARTING = (image, train, jobs, notify, schedule, colab)
for command in (*STARTING, status, logs, stop, doctor, sync, publish):
    cli.add_command(command)
