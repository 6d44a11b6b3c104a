-- What did a session's node time cost, and for what? One row per session, part and state (estimated or billed).
-- `usd` is NULL, never zero, when no price is known for the machine.
CREATE VIEW session_cost AS
SELECT
    lab, variant, trial, target, engine, provenance, pace, time_scale, run_id, session_id,
    x_state AS state,
    x_part AS part,
    SkuId AS sku,
    RegionId AS region,
    BillingCurrency AS currency,
    min(ChargePeriodStart) AS started_at,
    max(ChargePeriodEnd) AS ended_at,
    sum(PricingQuantity) AS node_hours,
    CASE WHEN count(*) = count(usd) THEN sum(usd) END AS usd,
    sum(PricingQuantity)::DOUBLE
        / nullif(sum(sum(PricingQuantity)) OVER (PARTITION BY session_id, x_state), 0) AS share_of_node_time
FROM cost_current
GROUP BY
    lab, variant, trial, target, engine, provenance, pace, time_scale, run_id, session_id,
    x_state, x_part, SkuId, RegionId, BillingCurrency;
