"""The tcomp command: one file a verb."""

from __future__ import annotations

import typer

from ..errors import TcompError
from . import artifacts, bench, check, compile_, inspect_, machine, profile_, run, tune_

app = typer.Typer(add_completion=False, help="A tensor compiler with a schedule language.", no_args_is_help=True)
for _verb in (machine.info, machine.clean, machine.operators, machine.show):
    app.command()(_verb)
app.command(name="inspect")(inspect_.inspect_model)
app.command(name="run")(run.run_model)
app.command(name="bench")(bench.bench_model)
app.command(name="check")(check.check_model)
app.command(name="profile")(profile_.profile_model)
app.command(name="compile")(compile_.compile_model)
app.command(name="verify")(artifacts.verify_artifact)
app.command(name="replay")(artifacts.replay_artifact)
app.command(name="tune")(tune_.tune_model)
app.command(name="size")(artifacts.size_artifact)


def main() -> None:
    """Entry point: a user's mistake is one message, not a traceback."""
    try:
        app()
    except TcompError as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from None
