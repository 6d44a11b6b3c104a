-- How did the budgets stand when the guard last wrote of them? One row per budget, the month's first; amounts in USD.
SELECT
    scope AS budget,
    state,
    budget_usd::DOUBLE AS budget_usd,
    spent_usd::DOUBLE AS spent_usd,
    committed_usd::DOUBLE AS committed_usd,
    spent_usd::DOUBLE / budget_usd::DOUBLE AS spent_share,
    tick_at AS as_of,
    reason
FROM budget_decisions
WHERE target = '${target}' AND period_end > now()
QUALIFY row_number() OVER (PARTITION BY scope ORDER BY recorded_at DESC) = 1
ORDER BY scope <> 'month', scope;
