-- How does the estimate compare with the bill as the days go by? One row per day with a session, sums since the first one.
-- `estimated_of_billed_usd` is the estimate of those sessions whose bill has come: beside `billed_usd` it compares like
-- with like. Days are UTC's, of a session's beginning.
WITH sessions AS (
    SELECT
        target, provenance, session_id,
        min(started_at)::DATE AS day,
        CASE WHEN count(usd) FILTER (state = 'estimated') = count(*) FILTER (state = 'estimated')
            THEN sum(usd) FILTER (state = 'estimated') END AS estimated_usd,
        CASE WHEN count(usd) FILTER (state = 'billed') = count(*) FILTER (state = 'billed')
            THEN sum(usd) FILTER (state = 'billed') END AS billed_usd
    FROM session_cost
    GROUP BY target, provenance, session_id
),
days AS (
    SELECT
        target, provenance, day,
        sum(estimated_usd) AS estimated_usd,
        sum(estimated_usd) FILTER (billed_usd IS NOT NULL) AS estimated_of_billed_usd,
        sum(billed_usd) AS billed_usd
    FROM sessions
    GROUP BY target, provenance, day
)
SELECT
    target, provenance, day,
    sum(estimated_usd) OVER so_far AS estimated_usd,
    sum(estimated_of_billed_usd) OVER so_far AS estimated_of_billed_usd,
    sum(billed_usd) OVER so_far AS billed_usd
FROM days
WINDOW so_far AS (PARTITION BY target, provenance ORDER BY day)
ORDER BY target, provenance, day;
