-- Which session speaks for a variant within its run? Of several turns the last one's, which is fixed before anything is
-- measured; the others are its repeats. One row per run and variant; `recorded_at` is when the newest row of any of its
-- sessions was written, `turns` how many of them have results. What all turns say together: findings of kind `paired`,
-- and the intervals of reference_sheet.
CREATE VIEW run_sessions AS
SELECT * REPLACE (max(recorded_at) OVER turns AS recorded_at), count(*) OVER turns AS turns
FROM session_results
WINDOW turns AS (PARTITION BY lab, variant, target, pace, time_scale, engine, provenance, run_id)
QUALIFY row_number() OVER (
    PARTITION BY lab, variant, target, pace, time_scale, engine, provenance, run_id
    ORDER BY trial DESC, session_results.recorded_at DESC, session_id
) = 1;
