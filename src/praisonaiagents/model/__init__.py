"""Floor 0: pure values and functions. No clock, no disk, no network, so all of it can be tested against plain lists.

`message` is what was said, `record` what a session is besides its messages, `points` where in a log a history ends,
`window` which messages still fit, `repair` what a language model will accept of them, `ids` which names are allowed and
what files they get.
"""
