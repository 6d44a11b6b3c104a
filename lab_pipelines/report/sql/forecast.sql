-- What did rehearsals say of the shown runs, and what came of them?
SELECT * FROM forecast_vs_measured
SEMI JOIN latest_run USING (session_id)
ORDER BY lab, target, run_id, session_id, step, stage, quantity;
