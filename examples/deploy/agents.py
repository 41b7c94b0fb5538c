"""What the container serves: put your own agent here."""

from praisonaiagents import Agent

agent = Agent(name="Assistant", instructions="You are a helpful assistant")
