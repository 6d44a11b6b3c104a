-- Which share of the traffic is served within the objective in the worst hour?
SELECT worst_hour_share AS value, 'a rate that occurs has no stage in this pace' AS gap
FROM capacity_results WHERE session_id = $session_id AND position = 0
