-- What did each machine type cost per hour, how sure is that price, and what was bought? One row per machine type and place,
-- over all sessions. Prices are the estimates' unit prices; `usd` is the bill where it has come in dollars, else the estimate,
-- and NULL where no session has a price.
WITH unit AS (
    SELECT
        target, provenance, SkuId AS sku,
        list_sort(list(DISTINCT RegionId) FILTER (RegionId IS NOT NULL)) AS regions,
        list_sort(list(DISTINCT x_priority) FILTER (x_priority IS NOT NULL)) AS priorities,
        min(ListUnitPrice) AS usd_per_h_from,
        max(ListUnitPrice) AS usd_per_h_to,
        min(x_price_low) AS low,
        max(x_price_high) AS high
    FROM cost_current
    WHERE x_state = 'estimated'
    GROUP BY target, provenance, SkuId
),
spent AS (
    SELECT
        target, provenance, sku,
        count(DISTINCT lab) AS labs,
        count(DISTINCT session_id) AS sessions,
        sum(node_hours)::DOUBLE AS node_hours,
        sum(node_hours) FILTER (part = 'serve')::DOUBLE / nullif(sum(node_hours)::DOUBLE, 0) AS serving_share,
        sum(usd) AS usd
    FROM session_money
    GROUP BY target, provenance, sku
)
SELECT
    s.target, s.provenance, s.sku, u.regions, u.priorities, u.usd_per_h_from, u.usd_per_h_to, u.low, u.high,
    s.labs, s.sessions, s.node_hours, coalesce(s.serving_share, 0) AS serving_share, s.usd
FROM spent AS s
LEFT JOIN unit AS u
    ON u.target = s.target AND u.provenance = s.provenance AND u.sku IS NOT DISTINCT FROM s.sku
ORDER BY s.target, s.provenance, s.usd DESC NULLS LAST, s.sku;
