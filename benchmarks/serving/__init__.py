"""An agent that is served to many users, measured.

    python -m benchmarks.serving            # SQLite and PostgreSQL, 500 users x 20 turns
    python -m benchmarks.serving --quick    # 50 users x 5 turns: does it work?

Users talk to a real server process over real HTTP, each in a session of their own; afterwards every turn is looked up in the
store. The model answers at once, so what is measured is the server and its storage. There are two floors, under the same
uvicorn with the same settings, in the same run: an ASGI app that sends back what it got, and one that has the LLM library
answer with the same model and keeps the history in a dict.

    load        the load generator, a process of its own
    served      the servers, each a process of its own
    words       what is said, different for each user and turn

What a reader would get wrong: users wait for their answer before they go on, so with 500 of them a turn mostly waits for the
turns of others. Its latency without any queue is that of one user; what 500 add is the time of one core times 500.
"""
