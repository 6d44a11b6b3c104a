-- Which share does it serve at most: the upper end of the 95 % interval over the months that were drawn?
SELECT served_share_high AS value, 'a rate that occurs has no stage in this pace' AS gap
FROM capacity_results WHERE session_id = $session_id AND position = 0
