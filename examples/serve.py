"""An agent over HTTP, two users with tokens of their own, and a client that any machine could run."""

from praisonaiagents import Agent, Session

agent = Agent(name="Assistant", instructions="You are a helpful assistant")
tokens = {"alices-long-token": "alice", "bobs-long-token": "bob"}

with agent.launch(path="/agent", port=0, block=False, users=tokens) as server:
    for token, user in tokens.items():
        with Session("main", user, server.url + "/agent", token=token) as session:
            session.chat(f"My name is {user.title()}")
            print(session.chat("What's my name?"))
            for piece in session.stream("What did I say first?"):
                print(piece, end="", flush=True)
            print()
