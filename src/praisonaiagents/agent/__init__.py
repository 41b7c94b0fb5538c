"""Floor 3: the agent, its turn over the LLM library, which model it talks to, and the model that needs no network."""
