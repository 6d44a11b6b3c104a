-- How long, at least, was one in a hundred of the waits between two streamed events in the stage? Of all requests together.
SELECT quantile_cont(gap_s, 0.99) FROM (
    SELECT unnest(event_offsets_s[2:]) - unnest(event_offsets_s[:-2]) AS gap_s FROM requests
    WHERE session_id = $session_id AND step = $step AND stage = $stage AND valid AND in_stage
)
