-- What do a thousand output tokens cost?
SELECT usd_per_1k_output_tokens AS value, 'a price is not known, or a rate that occurs has no stage in this pace' AS gap
FROM capacity_results WHERE session_id = $session_id AND position = 0
