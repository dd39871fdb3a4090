"""The command ``featherweight``, and ``python -m featherweight``: from the first moment on, Ctrl-C ends it in one line.

What a command needs takes a second or two to load. Whoever loads may take an interruption for an error of its own, so
until all is there the signal is answered at once: nothing has been begun that could be left half done.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys

from featherweight.contracts import EXIT_STOPPED, STOPPED


def main() -> int:
    """Run a command; the exit code is the return value."""
    usual = signal.getsignal(signal.SIGINT)
    try:
        if usual is signal.default_int_handler:  # whoever has it ignored, as nohup does, means that
            signal.signal(signal.SIGINT, _leave)
        command = importlib.import_module("featherweight.cli").main
        signal.signal(signal.SIGINT, usual)
        return command()
    except KeyboardInterrupt:
        sys.stderr.write(STOPPED)
        return EXIT_STOPPED


def _leave(*_: object) -> None:
    os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, STOPPED.encode())
    os._exit(EXIT_STOPPED)


if __name__ == "__main__":
    sys.exit(main())
