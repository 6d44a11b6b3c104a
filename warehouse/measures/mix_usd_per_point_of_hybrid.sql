-- What does each percentage point of served traffic cost per month that the 80/20 hybrid serves more than all Spot?
WITH mixes AS (
    SELECT
        any_value(usd_per_hour) FILTER (variant = 'hybrid-80') - any_value(usd_per_hour) FILTER (variant = 'spot-100') AS usd,
        any_value(served_share) FILTER (variant = 'hybrid-80') - any_value(served_share) FILTER (variant = 'spot-100') AS share
    FROM capacity_results SEMI JOIN run_sessions USING (session_id) WHERE run_id = $run_id AND position = 0
)
SELECT
    CASE WHEN share > 0 THEN 730 * usd / (100 * share) END AS usd,
    'it serves no more, or one of the two was not walked' AS gap
FROM mixes
