-- How long after the load ended had the condition of the idle alert held for its fifteen minutes, in stack seconds?
SELECT
    CASE outcome WHEN 'ok' THEN (detail ->> 'waited_s')::DOUBLE END AS s,
    CASE outcome WHEN 'skipped' THEN 'on this target the alert itself was waited for' ELSE 'it never did' END AS gap
FROM events
WHERE session_id = $session_id AND kind = 'observe' AND name = 'condition-holds'
