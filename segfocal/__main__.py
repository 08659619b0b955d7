"""``python -m segfocal``: the same as the ``segfocal`` command."""

from segfocal.cli import main

main()
