-- What did each stage of the shown sessions measure?
SELECT * FROM stage_table
SEMI JOIN latest_run USING (session_id)
ORDER BY session_id, step, stage;
