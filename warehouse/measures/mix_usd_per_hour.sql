-- What does the mix of nodes cost per hour?
SELECT usd_per_hour AS value, 'a price is not known' AS gap
FROM capacity_results WHERE session_id = $session_id AND position = 0
