-- What did the shown sessions' money go into? The bill where it has come in dollars, else the estimate.
SELECT * FROM session_cost
SEMI JOIN latest_run USING (session_id)
QUALIFY dense_rank() OVER (
    PARTITION BY session_id ORDER BY state = 'billed' AND usd IS NOT NULL DESC, state = 'estimated' DESC
) = 1
ORDER BY session_id, list_position(['serve', 'failed', 'idle', 'cold_start'], part);
