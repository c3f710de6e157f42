"""`python -m sharesrv` is the same as `sharesrv`."""

from __future__ import annotations

from sharesrv.cli import main

if __name__ == "__main__":
    main()
