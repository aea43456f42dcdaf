"""`python -m acon_nb.cli`."""

from acon_nb.cli import main

main()
