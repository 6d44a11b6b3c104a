-- Which sheet of a session holds today? The newest of its bill where that has come in dollars, else of its estimate.
-- All rows of a session, stages and whole, are of the same state. A bill in another currency can't take the place of an
-- estimate in dollars.
CREATE VIEW sheet_current AS
WITH holding AS (
    SELECT
        session_id,
        arg_max(
            {'state': coalesce(state, 'estimated'), 'recorded_at': recorded_at},
            (coalesce(state = 'billed' AND usd IS NOT NULL, false), coalesce(state, 'estimated') = 'estimated', recorded_at)
        ) AS it
    FROM finops_sheet
    WHERE stage IS NULL
    GROUP BY session_id
)
SELECT s.* REPLACE (coalesce(s.state, 'estimated') AS state)
FROM finops_sheet AS s
JOIN holding AS h
    ON h.session_id = s.session_id
    AND h.it.state = coalesce(s.state, 'estimated')
    AND h.it.recorded_at = s.recorded_at;
