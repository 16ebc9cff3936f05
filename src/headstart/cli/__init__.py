"""The command line: one file per command, each calling one public function.

Commands are imported when they are called, so ``headstart --help`` answers at once.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from headstart import __version__

if TYPE_CHECKING:
    from cyclopts import App

COMMANDS = {
    "demo": "Run the main job on a bundled data set; needs no network.",
    "sample": "Write a bundled data set: real handwritten digits, or drawn faces with keypoints.",
    "check": "Account for every file: what is broken, duplicated, unbalanced, leaking.",
    "convert": "Write photos' keypoints, in any form that train reads, as one CSV.",
    "train": "Check, split, train, evaluate, report, bundle.",
    "recipes": "List the recipes that come with headstart, and what each teaches.",
    "schedule": "Draw the learning rate that a recipe will follow, before training.",
    "evaluate": "Score a trained model on its own test images or on other labelled photos.",
    "predict": "Label photos with a trained model.",
    "ensemble": "Let several trained models answer as one.",
}
"""Commands and what each does, in the order of the help."""


def build_app() -> App:
    """Make the command-line application; no command is imported yet."""
    from cyclopts import App

    app = App(
        name="headstart",
        version=f"headstart {__version__}",
        help="From a folder of labelled photos to an image model you can trust.\n\n"
        "Exit codes: 0 done; 1 done, but photos could not be read (predict); 2 not done; 130 stopped by hand. "
        "With --debug, a message comes with its traceback.",
        help_format="plaintext",
        suppress_keyboard_interrupt=False,  # main says how to go on
    )
    for name, help_text in COMMANDS.items():
        app.command(f"headstart.cli.{name}:{name}", name=name, help=help_text)
    return app


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit: 0 done, 1 done with errors in some images, 2 not done (message), 130 stopped by hand."""
    signal.signal(signal.SIGTERM, _stop)
    # Threads that wait should sleep, not spin: beside another busy program spinning made training 5 to 10 times slower
    # (measured on 2 cores); alone it gains a few percent at most. Read by OpenMP when torch is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        wanted = [argument for argument in given if argument != "--debug"]
        code = build_app()(wanted, exit_on_error=False, print_error=False)
    except KeyboardInterrupt as stop:
        print(f"\nStopped. {stop}".rstrip(), file=sys.stderr)  # noqa: T201
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:  # noqa: BLE001 - the one place where any failure becomes a message
        _print_failure(error, with_traceback="--debug" in given)
        sys.exit(2)
    sys.exit(code if isinstance(code, int) else 0)


def _print_failure(error: Exception, *, with_traceback: bool) -> None:
    from headstart.cli.failures import word_failure

    if with_traceback:
        traceback.print_exception(error)
    print(f"Error: {word_failure(error)}", file=sys.stderr)  # noqa: T201 - the one place that prints errors


def _stop(*_: object) -> None:
    """Treat a request to end (a cluster's scheduler sends it) like Ctrl-C: save, say how to resume, leave."""
    raise KeyboardInterrupt
