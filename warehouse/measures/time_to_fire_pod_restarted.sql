-- How long after its cause began did the alert PodRestarted fire, in stack seconds?
SELECT (detail ->> 'firing_at_s')::DOUBLE FROM events
WHERE session_id = $session_id AND kind = 'fire_alert' AND detail ->> 'alert' = 'PodRestarted'
