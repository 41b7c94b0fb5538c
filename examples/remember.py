"""A conversation that survives: run it twice."""

from praisonaiagents import Agent

agent = Agent(name="Assistant", memory={"session_id": "example-remember"})
if not agent.chat_history:
    print(agent.chat("My name is Alice and I love pizza"))
print(agent.chat("What's my name?"))
