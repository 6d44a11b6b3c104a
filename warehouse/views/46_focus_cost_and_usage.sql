-- What would a FinOps tool read? The cost records that hold, as rows of FOCUS 1.2 (docs/focus.md has the mapping).
-- Both states of a session are here: filter by x_state, and by x_target. A record without a price or a cost in dollars is
-- left out, since no cost of a FOCUS row may be null.
CREATE VIEW focus_cost_and_usage AS
WITH rates AS (
    -- How many units of the bill's currency Azure took for a dollar, where it did not bill in dollars.
    SELECT session_id, recorded_at, sum(BilledCost)::DOUBLE / nullif(sum(x_billed_usd), 0)::DOUBLE AS per_usd
    FROM cost_records
    WHERE x_state = 'billed' AND BillingCurrency <> 'USD'
    GROUP BY session_id, recorded_at
    HAVING count(*) = count(x_billed_usd)
),
list_prices AS (
    SELECT session_id, SkuId, x_priority, arg_max(ListUnitPrice, recorded_at) AS usd
    FROM cost_records
    WHERE x_state = 'estimated' AND session_id IN (SELECT session_id FROM rates)
    GROUP BY session_id, SkuId, x_priority
),
priced AS (
    SELECT
        c.*,
        CASE WHEN r.session_id IS NULL THEN c.ListUnitPrice ELSE p.usd END AS list_usd,
        CASE WHEN r.session_id IS NULL THEN c.ListUnitPrice ELSE (p.usd * r.per_usd)::DECIMAL(18, 6) END AS list_price,
        CASE c.x_state WHEN 'billed' THEN c.BilledCost ELSE c.ListCost END AS cost
    FROM cost_current AS c
    LEFT JOIN rates AS r
        ON c.x_state = 'billed' AND r.session_id = c.session_id AND r.recorded_at = c.recorded_at
    LEFT JOIN list_prices AS p
        ON p.session_id = c.session_id AND p.SkuId = c.SkuId AND p.x_priority IS NOT DISTINCT FROM c.x_priority
)
SELECT
    cost AS BilledCost,
    'labs/' || target AS BillingAccountId,
    'Labs on target ' || target AS BillingAccountName,
    'Lab target' AS BillingAccountType,
    BillingCurrency,
    date_trunc('month', ChargePeriodStart) + INTERVAL 1 MONTH AS BillingPeriodEnd,
    date_trunc('month', ChargePeriodStart) AS BillingPeriodStart,
    'Usage' AS ChargeCategory,
    NULL::VARCHAR AS ChargeClass,
    concat(
        CASE x_state WHEN 'billed' THEN 'Billed' ELSE 'Estimated at list price' END,
        CASE provenance WHEN 'modelled' THEN ', modelled' ELSE '' END,
        ': ', lab, ' ', variant, ', ', replace(x_part, '_', ' '), ' time',
        CASE WHEN x_step IS NULL THEN '' ELSE ' of step ' || x_step || ' stage ' || x_stage END,
        ', ', SkuId, ' in ', RegionId, CASE x_priority WHEN 'spot' THEN ' as Spot' ELSE ' on demand' END
    ) AS ChargeDescription,
    'Usage-Based' AS ChargeFrequency,
    -- FOCUS counts whole seconds: the period is widened to them.
    CASE
        WHEN ChargePeriodEnd = date_trunc('second', ChargePeriodEnd) AND ChargePeriodEnd > ChargePeriodStart
            THEN ChargePeriodEnd
        ELSE date_trunc('second', ChargePeriodEnd) + INTERVAL 1 SECOND
    END AS ChargePeriodEnd,
    date_trunc('second', ChargePeriodStart) AS ChargePeriodStart,
    -- No commitment is known of: columns for the questions that others ask of every export.
    NULL::VARCHAR AS CommitmentDiscountCategory,
    NULL::VARCHAR AS CommitmentDiscountId,
    NULL::VARCHAR AS CommitmentDiscountName,
    NULL::DECIMAL(18, 9) AS CommitmentDiscountQuantity,
    NULL::VARCHAR AS CommitmentDiscountStatus,
    NULL::VARCHAR AS CommitmentDiscountType,
    NULL::VARCHAR AS CommitmentDiscountUnit,
    PricingQuantity AS ConsumedQuantity,
    'Node-Hours' AS ConsumedUnit,
    cost AS ContractedCost,
    cost AS EffectiveCost,
    NULL::VARCHAR AS InvoiceId,
    'Microsoft' AS InvoiceIssuerName,
    -- Wide enough for any product; DECIMAL(18, 15) is what DuckDB makes of it by itself, and ends at 999.
    list_price::DECIMAL(19, 6) * PricingQuantity::DECIMAL(19, 9) AS ListCost,
    list_price AS ListUnitPrice,
    CASE x_priority WHEN 'spot' THEN 'Dynamic' ELSE 'Standard' END AS PricingCategory,
    'USD' AS PricingCurrency,
    usd AS PricingCurrencyEffectiveCost,
    list_usd AS PricingCurrencyListUnitPrice,
    PricingQuantity,
    'Node-Hours' AS PricingUnit,
    'Microsoft' AS ProviderName,
    'Microsoft' AS PublisherName,
    RegionId,
    RegionId AS RegionName,
    concat_ws('/', target, lower(lab), session_id, coalesce(x_pool, SkuId)) AS ResourceId,
    x_pool AS ResourceName,
    'Virtual machine' AS ResourceType,
    'Compute' AS ServiceCategory,
    'Virtual Machines' AS ServiceName,
    'Virtual Machines' AS ServiceSubcategory,
    SkuId,
    'Node-Hours' AS SkuMeter,
    json_object('InstanceType', SkuId)::VARCHAR AS SkuPriceDetails,
    concat_ws('/', SkuId, RegionId, x_priority) AS SkuPriceId,
    json_object('lab', lower(lab), 'variant', variant)::VARCHAR AS Tags,
    lab AS x_lab,
    variant AS x_variant,
    trial AS x_trial,
    x_step,
    x_stage,
    x_part,
    x_state,
    x_method,
    target AS x_target,
    engine AS x_engine,
    provenance AS x_provenance,
    pace AS x_pace,
    time_scale AS x_time_scale,
    run_id AS x_run_id,
    session_id AS x_session_id,
    x_pool,
    x_priority,
    x_price_low,
    x_price_high,
    x_estimated_usd,
    x_billed_usd,
    x_delta_usd,
    x_billed_at,
    x_bill_state,
    recorded_at AS x_recorded_at
FROM priced
WHERE usd IS NOT NULL AND cost IS NOT NULL AND list_price IS NOT NULL AND SkuId IS NOT NULL;
