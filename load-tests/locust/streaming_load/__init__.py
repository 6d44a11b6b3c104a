"""What one Locust process needs to stream completions and time them honestly.

    plan        the load plan, as read from its JSON file
    prompts     the request bodies: exact token ids that no prefix cache can serve
    exchange    one HTTP request on the wire, with a stamp for every read
    sse         the events in what was read, each with its stamp
    records     one finished request as a flat record
    recorder    turning exchanges into lines of a file without disturbing the streams
    stages      when a stage of the ramp may end

Only `exchange` and `recorder` know of gevent, and nothing here knows of Locust: locustfile.py joins the two.
Doesn't belong here: stack seconds, summaries or the warehouse. Every time is in wall seconds.
"""
