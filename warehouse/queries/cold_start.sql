-- Where does a cold start's time go?
SELECT
    lab, variant, target, pace, provenance, phase,
    round(starts_at_s, 1) AS starts_at_s, round(duration_s, 1) AS duration_s, round(share, 3) AS share
FROM cold_start_timeline
SEMI JOIN latest_run USING (session_id)
ORDER BY lab, variant, target, pace, session_id, position;
