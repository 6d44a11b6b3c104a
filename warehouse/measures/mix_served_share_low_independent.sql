-- Which share would it serve at least if reclaims of the same rate took one node at a time?
SELECT min(served_share_low) AS value, 'a rate that occurs has no stage in this pace' AS gap
FROM capacity_results WHERE session_id = $session_id AND together = 0 AND reclaims_per_hour = (
    SELECT any_value(reclaims_per_hour) FROM capacity_results WHERE session_id = $session_id AND position = 0
)
