-- Which claims ended as $verdict on a target, by the newest run of each lab?
SELECT
    f.lab AS "the lab",
    f.claim AS "claim",
    f.effect AS "effect",
    f.interval_low AS "interval from",
    f.interval_high AS "to",
    f.target, f.provenance, f.pace, f.time_scale, f.engine, f.run_id, f.recorded_at
FROM findings AS f
SEMI JOIN latest_run USING (session_id)
WHERE f.target = $target AND f.verdict = $verdict
ORDER BY f.lab, f.finding, f.variant;
