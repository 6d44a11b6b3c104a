-- Which sessions does the report show? Those that speak for each lab, variant, target, pace and engine, run by run, in the
-- order of the first turn. `usd` is what the variant cost in all turns of the run. `repeated` names the variants of the
-- same run that a newer one has walked again.
WITH sessions AS (
    SELECT
        * REPLACE (CASE WHEN count(*) OVER turns = count(usd) OVER turns THEN sum(usd) OVER turns END AS usd),
        min(position) OVER turns AS first_position,
        bool_or(latest) OVER turns AS shown
    FROM run_overview
    WINDOW turns AS (PARTITION BY target, lab, run_id, variant, pace, engine, provenance)
)
SELECT
    * EXCLUDE (first_position, shown),
    max(recorded_at) OVER run AS run_recorded_at,
    coalesce(list(variant ORDER BY position) FILTER (NOT shown AND position = first_position) OVER run, []) AS repeated
FROM sessions
WINDOW run AS (PARTITION BY target, lab, run_id)
QUALIFY latest
ORDER BY target, lab, run_recorded_at DESC, run_id, first_position;
