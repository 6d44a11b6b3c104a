-- How far is each session's estimate from Azure's bill? `billed` is NULL while the session waits for it, or where Azure
-- bills in another currency than dollars, `estimated_usd` where the price of any of its node time isn't known; `state`
-- says whether the bill may still change.
SELECT
    target, lab, variant, pace, provenance, session_id,
    min(ChargePeriodStart) AS started_at,
    CASE WHEN count(*) FILTER (x_state = 'estimated') = count(usd) FILTER (x_state = 'estimated')
        THEN sum(usd) FILTER (x_state = 'estimated')
    END AS estimated_usd,
    CASE WHEN count(*) FILTER (x_state = 'billed') = count(usd) FILTER (x_state = 'billed')
        THEN sum(usd) FILTER (x_state = 'billed')
    END AS billed_usd,
    billed_usd - estimated_usd AS delta_usd,
    (delta_usd / nullif(estimated_usd, 0))::DOUBLE AS delta_share,
    max(x_bill_state) AS state,
    max(x_billed_at) AS billed_at
FROM cost_current
GROUP BY target, lab, variant, pace, provenance, session_id
ORDER BY target, lab, started_at;
