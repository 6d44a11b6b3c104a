-- Which requests don't count, and why? One row per lab, place and reason, of the runs that speak for their lab. A request may
-- have several reasons. `sent` is how many requests those sessions sent.
WITH shown AS (
    SELECT target, provenance, lab, session_id, valid, invalid_reasons
    FROM requests
    SEMI JOIN latest_run USING (session_id)
),
all_of AS (
    SELECT target, provenance, lab, count(*) AS sent FROM shown GROUP BY target, provenance, lab
)
SELECT target, provenance, lab, reason, count(*) AS requests, any_value(sent) AS sent
FROM (SELECT target, provenance, lab, unnest(invalid_reasons) AS reason FROM shown WHERE NOT valid)
JOIN all_of USING (target, provenance, lab)
GROUP BY target, provenance, lab, reason
ORDER BY target, provenance, requests DESC, lab, reason;
