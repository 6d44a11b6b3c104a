-- What did the shown sessions' cold starts consist of?
SELECT * FROM cold_start_timeline
SEMI JOIN latest_run USING (session_id)
ORDER BY session_id, position;
