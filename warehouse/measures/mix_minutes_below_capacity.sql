-- For how many minutes a month are fewer replicas up than serve 99 % of the traffic?
SELECT minutes_below_capacity AS value, 'no number of replicas serves 99 % of the traffic' AS gap
FROM capacity_results WHERE session_id = $session_id AND position = 0
