-- Which claims held on the latest runs' own rows?
SELECT
    lab, variant, target, pace, provenance, time_scale, finding, verdict,
    round(effect, 3) AS effect, round(interval_low, 3) AS low, round(interval_high, 3) AS high, n, claim, reason
FROM findings
SEMI JOIN latest_run USING (session_id)
ORDER BY lab, variant, target, pace, finding;
