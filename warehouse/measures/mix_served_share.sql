-- Which share of the traffic does the mix of nodes serve within the objective, in the lab's own scenario?
SELECT served_share AS value, 'a rate that occurs has no stage in this pace' AS gap
FROM capacity_results WHERE session_id = $session_id AND position = 0
