-- What came of each lab, and where? One row per lab, target and provenance: the verdicts of its newest sessions, and
-- what all its runs cost. `usd` adds up what has a price; `unpriced_runs` have none.
WITH verdicts AS (
    SELECT
        lab, target, provenance,
        count(*) FILTER (verdict = 'confirmed') AS confirmed,
        count(*) FILTER (verdict = 'refuted') AS refuted,
        count(*) FILTER (verdict = 'inconclusive') AS inconclusive
    FROM findings
    SEMI JOIN latest_run USING (session_id)
    GROUP BY lab, target, provenance
),
spent AS (
    -- Also by sessions of runs that were cut, or that have nothing else to tell.
    SELECT
        lab, target, provenance,
        count(DISTINCT run_id) AS runs,
        sum(usd) AS usd,
        count(DISTINCT run_id) FILTER (usd IS NULL) AS unpriced_runs
    FROM (
        SELECT lab, target, provenance, run_id, usd FROM session_money
        UNION ALL
        SELECT lab, target, provenance, run_id, NULL AS usd FROM session_results ANTI JOIN session_money USING (session_id)
    )
    GROUP BY lab, target, provenance
)
SELECT
    lab, target, provenance,
    coalesce(confirmed, 0) AS confirmed,
    coalesce(refuted, 0) AS refuted,
    coalesce(inconclusive, 0) AS inconclusive,
    runs, usd, unpriced_runs
FROM spent
LEFT JOIN verdicts USING (lab, target, provenance)
ORDER BY lab, provenance, target;
