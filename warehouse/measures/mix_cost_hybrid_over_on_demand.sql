-- Which part of all on demand's cost does the 80/20 hybrid have?
SELECT
    any_value(usd_per_hour) FILTER (variant = 'hybrid-80') / any_value(usd_per_hour) FILTER (variant = 'on-demand') AS ratio,
    'one of the two was not walked, or has no price' AS gap
FROM capacity_results SEMI JOIN run_sessions USING (session_id) WHERE run_id = $run_id AND position = 0
