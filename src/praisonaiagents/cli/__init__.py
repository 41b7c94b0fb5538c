"""The command line: `praisonai session ...`, `praisonai run ...` and `praisonai doctor`.

`main` finds a command, `sessions`, `search`, `run` and `doctor` are the commands, `place` is which sessions they are about,
`chat` is the conversation in a terminal, `output` is how anything is shown. Listing sessions must stay fast, so no module here
imports the LLM library, rich or prompt_toolkit at its top.
"""
