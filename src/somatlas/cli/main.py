"""The command `somatlas`: its entry, its errors, its signals."""

from __future__ import annotations

import io
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import click

from somatlas import __version__
from somatlas.arguments import check_unicode
from somatlas.cli.audit_command import AUDITS
from somatlas.cli.options import SectionedGroup
from somatlas.cli.reading_commands import READING
from somatlas.cli.run_commands import STAGE_COMMANDS, WHOLE_RUNS
from somatlas.errors import InputError


@click.group(cls=SectionedGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="somatlas")
def commands() -> None:
    """Map how a language model encodes refusal, and measure what removing it does.

    `somatlas run` does everything on the embedded default model; each stage is a command too, and
    goes on from the stages before it in the same run folder.
    """


commands.add_section("Whole runs", {**WHOLE_RUNS, **AUDITS})
commands.add_section("Stages", STAGE_COMMANDS)
commands.add_section("Reading and judging runs", READING)


def main() -> None:
    """Entry point: bad input ends with one sentence on stderr and exit code 2."""
    for stream in (sys.stdout, sys.stderr):  # a Windows pipe has no interval's dash in its letters
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        for argument in sys.argv[1:]:
            check_unicode(f"argument {argument!r}", argument)
        with _stopped_as_by_ctrl_c():
            commands.main(standalone_mode=False)
    except click.ClickException as error:
        _fail(error.format_message())
    except InputError as error:
        _fail(str(error))
    except (KeyboardInterrupt, click.Abort):
        click.echo("\nsomatlas: interrupted; the same command goes on from here", err=True)
        sys.exit(130)
    except OSError as error:
        if error.errno is None:
            raise
        place = f" {error.filename}" if error.filename else ""
        _fail(f"cannot read or write{place}: {error.strerror}")
    except RuntimeError as error:
        if "out of memory" not in str(error):
            raise
        _fail("the device is out of memory: lower --batch-size or take a smaller --dtype")


@contextmanager
def _stopped_as_by_ctrl_c() -> Iterator[None]:
    """A process that is told to end, or whose terminal goes, leaves things as Ctrl-C does."""

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    names = ("SIGTERM", "SIGHUP")
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (getattr(signal, name) for name in names if hasattr(signal, name)):
            if signal.getsignal(number) is signal.SIG_DFL:  # one that is ignored (nohup) stays so
                before[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _fail(message: str) -> None:
    click.echo(f"somatlas: {message}", err=True)
    sys.exit(2)
