-- What was estimated, and what did the bill say? One row per day of UTC on which sessions began, in USD. A day whose
-- sessions have no bill yet has NULL there, never zero; `estimated_of_billed` is the estimate of those that have one.
WITH sessions AS (
    SELECT
        session_id,
        -- Of UTC, whatever the session's time zone is.
        date_trunc('day', make_timestamp(epoch_us(min(started_at)))) AS day,
        sum(usd) FILTER (state = 'estimated') AS estimated,
        sum(usd) FILTER (state = 'billed') AS billed
    FROM session_cost
    WHERE target = '${target}'
    GROUP BY session_id
)
SELECT
    day AS time,
    sum(estimated)::DOUBLE AS estimated,
    (sum(estimated) FILTER (billed IS NOT NULL))::DOUBLE AS estimated_of_billed,
    sum(billed)::DOUBLE AS billed
FROM sessions
WHERE $__timeFilter(day)
GROUP BY day
ORDER BY day;
