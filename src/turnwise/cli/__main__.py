"""`python -m turnwise.cli`."""

from turnwise.cli.main import main

main()
