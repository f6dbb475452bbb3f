"""``python -m convoscope`` is the ``convoscope`` command."""

from .cli import main

main()
