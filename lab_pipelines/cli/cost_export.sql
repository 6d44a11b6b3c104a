-- Which rows of FOCUS does an export hold? Of one target, and of each session one state, so that nobody adds an estimate
-- to its bill. `best` is the bill where it has come, else the estimate.
SELECT *
FROM focus_cost_and_usage
WHERE x_target = getvariable('target')
    AND (getvariable('lab') IS NULL OR x_lab = getvariable('lab'))
    AND (getvariable('since') IS NULL OR ChargePeriodStart >= getvariable('since'))
    AND (getvariable('until') IS NULL OR ChargePeriodStart < getvariable('until'))
    AND (
        x_state = getvariable('state')
        OR (
            getvariable('state') = 'best'
            AND (
                x_state = 'billed'
                OR x_session_id NOT IN (SELECT x_session_id FROM focus_cost_and_usage WHERE x_state = 'billed')
            )
        )
    )
