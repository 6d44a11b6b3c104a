-- What was estimated, and what did the bill say? One row per day of UTC on which sessions began, in USD. A day whose
-- sessions have no bill yet has NULL there, never zero; `estimated_of_billed` is the estimate of those that have one. A
-- session is in no sum where the price of any of its node time isn't known.
WITH sessions AS (
    SELECT
        session_id,
        -- Of UTC, whatever the session's time zone is.
        date_trunc('day', make_timestamp(epoch_us(min(started_at)))) AS day,
        CASE WHEN count(*) FILTER (state = 'estimated') = count(usd) FILTER (state = 'estimated')
            THEN sum(usd) FILTER (state = 'estimated')
        END AS estimated,
        CASE WHEN count(*) FILTER (state = 'billed') = count(usd) FILTER (state = 'billed')
            THEN sum(usd) FILTER (state = 'billed')
        END AS billed
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
