"""Floor 2: what an agent's `memory=` means."""
