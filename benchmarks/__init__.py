"""Measures what the project promises of itself: overhead, the client's own lag, import time, memory.

    python -m benchmarks.run [--only NAME] [--quick]

    run         the command line: which benchmarks, the table, results/latest.json
    figures     a measured figure beside its bound
    demo        one run of the main command, watched from outside
    bare        the same work without the pipeline, as a script of its own
    overhead    where the time of both went
    client_lag  how late the load generator sees what the server sent
    imports     the code location's import against `import dagster`
    rivals      our load generator beside others; rivals_server, rivals_tools, rivals_bare, rivals_install are its parts
    frozen      a server that stands still, under an open and a closed loop (frozen_users)
    row_writing what the rows of 10,000 requests cost
    report      the pages of all labs, and a thousand times the requests

A figure over its bound is reported, not an error; a benchmark that can't be run is.
Doesn't belong here: numbers of a lab's stack (those are rows in the warehouse).
"""
