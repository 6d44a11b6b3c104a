-- Which sessions does the report show? Those that speak for each lab, variant, target, pace and engine, run by run.
-- `usd` is what the variant cost in all turns of the run. `repeated` names the variants of the same run that a newer one
-- has walked again.
SELECT
    * REPLACE (CASE WHEN count(*) OVER variants = count(usd) OVER variants THEN sum(usd) OVER variants END AS usd),
    max(recorded_at) OVER run AS run_recorded_at,
    coalesce(list(variant ORDER BY position) FILTER (NOT shown AND trial = 1) OVER run, []) AS repeated
FROM (
    SELECT *, bool_or(latest) OVER (PARTITION BY target, lab, run_id, variant, pace, engine, provenance) AS shown
    FROM run_overview
)
WINDOW
    run AS (PARTITION BY target, lab, run_id),
    variants AS (PARTITION BY target, lab, run_id, variant, pace, engine, provenance)
QUALIFY latest
-- In the order of the first turn.
ORDER BY target, lab, run_recorded_at DESC, run_id, min(position) OVER variants;
