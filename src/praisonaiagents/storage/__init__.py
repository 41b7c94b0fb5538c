"""Floor 1: where bytes rest. `engine` is the contract, each engine is one file, `registry` finds one by its URL."""
