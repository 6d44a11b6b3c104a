-- Which days does Azure's bill have, and what do they sum to? One row per day that was ever asked for, and currency.
-- `cost` is NULL, never zero, for a day that was asked for and has no data: a gap.
CREATE VIEW bill_by_day AS
WITH asked AS (
    SELECT
        target, provenance, asked_at,
        unnest(range(asked_from::TIMESTAMP, asked_to + INTERVAL 1 DAY, INTERVAL 1 DAY))::DATE AS usage_date
    FROM bill_asks
),
days AS (
    SELECT target, provenance, usage_date, max(asked_at) AS asked_at
    FROM asked
    GROUP BY target, provenance, usage_date
)
SELECT
    days.target,
    days.provenance,
    days.usage_date,
    days.asked_at,
    bill.currency,
    sum(bill.cost) AS cost,
    CASE WHEN count(bill.cost) = count(bill.cost_usd) THEN sum(bill.cost_usd) END AS cost_usd,
    count(bill.cost) AS lines,
    max(bill.asked_at) AS changed_at
FROM days
LEFT JOIN (FROM bill_current WHERE cost IS NOT NULL) AS bill USING (target, provenance, usage_date)
GROUP BY days.target, days.provenance, days.usage_date, days.asked_at, bill.currency;
