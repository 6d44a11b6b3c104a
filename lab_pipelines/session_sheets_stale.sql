-- Whose costs are newer than their sheet, or others than it says? One row per closed session and state of its costs.
-- Sessions that no sheet was ever made of are left out: their run has not come that far, or was cut. Times alone don't
-- tell: a sheet may have been computed from former costs and written after newer ones.
WITH costs AS (
    SELECT
        session_id, x_state AS state, max(recorded_at) AS costed_at,
        CASE WHEN count(*) = count(usd) THEN sum(usd) END AS usd
    FROM cost_current
    WHERE target = $target AND ($lab IS NULL OR lab = $lab)
    GROUP BY session_id, x_state
),
sheets AS (
    SELECT
        session_id, coalesce(state, 'estimated') AS state, max(recorded_at) AS written_at,
        -- Of the newest, in a list of one: NULL is an answer, too.
        arg_max([usd], recorded_at)[1] AS usd
    FROM finops_sheet
    WHERE target = $target AND ($lab IS NULL OR lab = $lab) AND stage IS NULL
    GROUP BY session_id, coalesce(state, 'estimated')
)
SELECT s.*, c.state AS costs_state
FROM stack_sessions AS s
JOIN costs AS c USING (session_id)
LEFT JOIN sheets AS h ON h.session_id = c.session_id AND h.state = c.state
SEMI JOIN sheets AS made ON made.session_id = s.session_id
WHERE s.state = 'closed'
    AND (h.written_at IS NULL OR h.written_at < c.costed_at OR h.usd IS DISTINCT FROM c.usd)
ORDER BY c.state, s.lab, s.run_id, s.requested_at;
