"""Sessions in a database: run it twice, or give it the URL of another place."""

import sys

from praisonaiagents import Agent
from praisonaiagents.session import open_store

url = sys.argv[1] if len(sys.argv) > 1 else "sqlite:///example.db"

with Agent(name="Assistant", memory={"session_id": "example-database", "db": url}) as agent:
    print(agent.chat("My name is Alice and I love pizza"))
    print(agent.chat("What's my name?"))

with open_store(url) as store:
    for hit in store.search("pizza"):
        print(hit.session_id, hit.message_index, hit.snippet)
