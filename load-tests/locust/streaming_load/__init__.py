"""What one Locust process needs to stream completions and time them honestly.

    plan        the load plan, as read from its JSON file
    traces      the requests of real traffic, read from files
    schedule    when an open loop's requests are due, and which shape each request has
    prompts     the bodies of completions: exact token ids that no prefix cache can serve
    messages    the bytes of every request
    exchange    one HTTP request on the wire, with a stamp for every read
    open_loop   sending requests at their scheduled times
    sse         the events in what was read, each with its stamp
    records     one finished request as a flat record
    ranks       quantiles of a sample
    recorder    turning exchanges into lines of a file without disturbing the streams
    stages      when a stage may end

Only `exchange`, `open_loop` and `recorder` know of gevent, and nothing here knows of Locust: locustfile.py joins them.
Doesn't belong here: stack seconds, summaries or the warehouse. Every time is in wall seconds.
"""
