-- What came of the shown runs' claims, in the order in which they were judged?
SELECT * FROM findings
SEMI JOIN latest_run USING (session_id)
ORDER BY run_id, recorded_at, finding;
