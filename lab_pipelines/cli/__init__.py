"""`labs`: the project's command line.

Belongs here: arguments, what is printed, exit codes. Doesn't belong here: any rule about labs or numbers.
One module per group of commands; app.py puts them together. What a command needs beyond typer it imports when it runs,
so that `labs list` doesn't wait for a database.
"""

from lab_pipelines.cli.app import app, main

__all__ = ["app", "main"]
