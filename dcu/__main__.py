"""``dcu`` and ``python -m dcu``."""

from __future__ import annotations

import sys

from dcu.cli import signals


def main() -> None:
    """Run the command line; the imports too may be interrupted."""
    signals.install()
    try:
        from dcu.cli import app
    except KeyboardInterrupt:
        sys.exit(signals.exit_code())
    app.main()


if __name__ == "__main__":
    main()
