"""Two users, one session id, nothing shared."""

from praisonaiagents import Agent, MemoryConfig


def agent_for(user_id: str) -> Agent:
    """The agent of one user."""
    return Agent(name="Assistant", memory=MemoryConfig(session_id="main", user_id=user_id))


agent_for("alice").chat("My favorite color is blue")
agent_for("bob").chat("My favorite color is red")
print(agent_for("alice").chat("What is my favorite color?"))
print(agent_for("bob").chat("What is my favorite color?"))
