-- How long did each stage of a rehearsal take, and how many requests counted in it?
SELECT
    session_id, variant, step, stage, coalesce(offered_per_s, users)::DOUBLE AS load, duration_s, hold_s,
    requests_in_stage AS requests
FROM load_stages
WHERE run_id = $run_id
ORDER BY started_at;
