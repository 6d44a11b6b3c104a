-- What was each measure's value in each stage of the shown sessions (step NULL: in the whole session)? NULL is a gap.
SELECT run_id, lab, target, session_id, variant, step, stage, measure, unit, value FROM metric_summaries
SEMI JOIN latest_run USING (session_id)
ORDER BY session_id, step, stage, measure;
