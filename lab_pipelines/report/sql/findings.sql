-- What came of the shown sessions' claims?
SELECT * FROM findings
SEMI JOIN latest_run USING (session_id)
ORDER BY session_id, finding;
