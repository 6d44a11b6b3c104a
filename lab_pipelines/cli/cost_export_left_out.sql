-- Which cost records can't be rows of FOCUS, where no cost may be null? How many of each state, and for which reason.
SELECT
    x_state AS state,
    CASE
        WHEN usd IS NULL AND x_state = 'billed' THEN 'billed in ' || BillingCurrency || ', and Azure did not say it in dollars'
        ELSE 'no list price is known for the machine'
    END AS reason,
    count(*) AS records,
    sum(usd) AS usd
FROM cost_current AS c
WHERE target = getvariable('target')
    AND (getvariable('lab') IS NULL OR lab = getvariable('lab'))
    AND (getvariable('since') IS NULL OR ChargePeriodStart >= getvariable('since'))
    AND (getvariable('until') IS NULL OR ChargePeriodStart < getvariable('until'))
    AND getvariable('state') IN ('best', x_state)
    AND (usd IS NULL OR SkuId IS NULL OR (
        ListUnitPrice IS NULL
        AND NOT EXISTS (
            FROM focus_cost_and_usage AS f
            WHERE f.x_session_id = c.session_id AND f.x_state = c.x_state AND f.SkuId = c.SkuId
        )
    ))
GROUP BY ALL
ORDER BY ALL
