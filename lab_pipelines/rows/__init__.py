"""From what happened to warehouse rows, whose durations are stack seconds: here wall seconds become them.

Times of day stay the wall clock's; who makes durations of them multiplies by `time_scale` (assets/samples.py).

    common.py           the columns that every table begins with
    sessions.py         stack_sessions, node_time
    events.py           events, log_lines
    load.py             requests, load_stages, client_errors
    measures.py         metric_samples, metric_summaries, counter_totals
    capacity_spells.py  capacity_spells
    costs.py            cost_records

Belongs here: pure functions from sessions and load records to rows of the tables in warehouse/schema/.
Doesn't belong here: what a session's time cost (../cost.py), reading or writing the warehouse (resources/warehouse.py).
"""
