"""The command line: `praisonai session ...` and `praisonai run ...`.

`main` finds a command, `sessions` and `run` are the commands, `chat` is the conversation in a terminal, `output` is how
anything is shown. Listing sessions must stay fast, so no module here imports the LLM library, rich or prompt_toolkit at its top.
"""
