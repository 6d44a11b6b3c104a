-- Of all alerts that were caused, how long did the slowest take to be notified, in stack seconds? No value if one wasn't.
SELECT CASE WHEN count(*) = count(detail ->> 'notified_at_s') THEN max((detail ->> 'notified_at_s')::DOUBLE) END
FROM events WHERE session_id = $session_id AND kind = 'fire_alert'
