"""What the promises cost, measured: `python -m benchmarks` from the root of the repository, in the project's environment.

Every figure that matters is a ratio of two things measured in the same run, in turns, because a shared machine is fast one
minute and slow the next: an append to a long session against one to a short session, our append against its bare system
calls, a listing against a bare look at the folder, a command against `python -c pass`, another library against us.

    __main__     the command line
    results      rows, checks, and how they are printed
    timing       measuring in turns
    processes    what a child process costs
    machine      what this was measured on
    settings     how much of it
    inputs       what is written
    sessions     the sessions that are measured, always the same
    appends, reads, listings, startup, peers     the cases
    contestants  one file per library, each run in its own process

What a reader would get wrong: nothing here passes or fails. A target is printed beside what was measured, as information.
"""
