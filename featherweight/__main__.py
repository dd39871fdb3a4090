"""``python -m featherweight`` is the command ``featherweight``."""

from __future__ import annotations

import sys

from featherweight.cli import main

if __name__ == "__main__":
    sys.exit(main())
