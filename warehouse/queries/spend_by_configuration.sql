-- What did every configuration cost that was ever tested, and for what: estimated, and by the bill where it has come?
SELECT
    lab, variant, target, pace, provenance, time_scale, SkuId AS sku, x_priority AS priority, x_state AS state,
    x_part AS part,
    sum(PricingQuantity) AS node_hours,
    CASE WHEN count(*) = count(usd) THEN sum(usd) END AS usd
FROM cost_current
GROUP BY ALL
ORDER BY lab, variant, target, pace, sku, priority, state, usd DESC, part;
