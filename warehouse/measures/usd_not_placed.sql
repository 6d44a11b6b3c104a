-- How much of Azure's bill on this target could no rule place on a session, in dollars?
SELECT
    CASE WHEN count(*) > 0 AND count(*) = count(cost_usd)
        THEN coalesce(sum(cost_usd) FILTER (session_id IS NULL), 0)::DOUBLE
    END AS usd,
    CASE count(*) WHEN 0 THEN 'no bill on target ' || $target || ' was reconciled' ELSE 'the bill was not in dollars' END
        AS gap
FROM bill_shares_current
WHERE target = $target
