-- How long after the load ended was somebody told that the GPU is idle, in stack seconds?
SELECT
    (detail ->> 'notified_at_s')::DOUBLE AS s,
    CASE outcome WHEN 'skipped' THEN 'no alert is evaluated as time passes on this target' ELSE 'nobody was told' END AS gap
FROM events
WHERE session_id = $session_id AND kind = 'fire_alert' AND name = 'idle-alert'
