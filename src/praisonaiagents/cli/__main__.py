"""`python -m praisonaiagents.cli`, the same as `praisonai`."""

from praisonaiagents.cli.main import main

main()
