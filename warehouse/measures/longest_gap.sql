-- What was the longest wait between two streamed events of one request in the stage?
SELECT max(gap_s) FROM (
    SELECT unnest(event_offsets_s[2:]) - unnest(event_offsets_s[:-2]) AS gap_s FROM requests
    WHERE session_id = $session_id AND step = $step AND stage = $stage AND valid AND in_stage
)
