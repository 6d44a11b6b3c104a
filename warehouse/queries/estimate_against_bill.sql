-- How far is each session's estimate from Azure's bill? `billed` is NULL while the session waits for it, or where Azure
-- bills in another currency than dollars; `state` says whether it may still change.
SELECT
    target, lab, variant, pace, provenance, session_id,
    min(ChargePeriodStart) AS started_at,
    sum(usd) FILTER (x_state = 'estimated') AS estimated_usd,
    sum(usd) FILTER (x_state = 'billed') AS billed_usd,
    billed_usd - estimated_usd AS delta_usd,
    (delta_usd / nullif(estimated_usd, 0))::DOUBLE AS delta_share,
    max(x_bill_state) AS state,
    max(x_billed_at) AS billed_at
FROM cost_current
GROUP BY target, lab, variant, pace, provenance, session_id
ORDER BY target, lab, started_at;
