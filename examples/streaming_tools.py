"""An answer as it comes, with a tool on the way."""

from praisonaiagents import Agent


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


agent = Agent(name="Calculator", tools=[add], memory={"session_id": "example-tools"})
for piece in agent.iter_stream("add 2 and 3"):
    print(piece, end="", flush=True)
print()
