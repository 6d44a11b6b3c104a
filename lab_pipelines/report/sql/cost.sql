-- What did the shown sessions' money go into? The bill where it has come in dollars, else the estimate.
SELECT * FROM session_money
SEMI JOIN latest_run USING (session_id)
ORDER BY session_id, list_position(['serve', 'failed', 'idle', 'cold_start'], part);
