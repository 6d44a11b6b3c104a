-- What did the shown sessions' money go into? The bill where it has come, else the estimate.
SELECT * FROM session_cost
SEMI JOIN latest_run USING (session_id)
QUALIFY dense_rank() OVER (PARTITION BY session_id ORDER BY state = 'billed' DESC) = 1
ORDER BY session_id, list_position(['serve', 'failed', 'idle', 'cold_start'], part);
