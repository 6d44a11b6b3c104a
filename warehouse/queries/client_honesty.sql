-- Did the load generator itself distort what it measured? Its lag behind schedule, behind the server's stamps, and CPU.
SELECT
    lab, variant, target, pace, time_scale, step, load,
    count(*) AS requests,
    count(*) FILTER (NOT valid) AS not_valid,
    round(1000 * quantile_cont(schedule_lag_s / time_scale, 0.99), 2) AS schedule_lag_p99_wall_ms,
    round(1000 * quantile_cont(abs(ttft_lag_wall_s), 0.99), 2) AS ttft_lag_p99_wall_ms,
    round(1000 * quantile_cont(receive_lag_p99_wall_s, 0.5), 2) AS receive_lag_p99_wall_ms,
    round(any_value(client_cpu_share), 3) AS client_cpu_share
FROM requests
JOIN load_stages USING (lab, variant, target, pace, time_scale, session_id, step, stage)
JOIN (SELECT session_id, step, stage, load FROM stage_table) USING (session_id, step, stage)
SEMI JOIN latest_run USING (session_id)
GROUP BY lab, variant, target, pace, time_scale, session_id, step, stage, load
ORDER BY lab, variant, target, pace, step, stage;
