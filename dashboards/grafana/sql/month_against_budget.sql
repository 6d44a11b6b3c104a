-- How much of the month's budget is spent? One row per day of this UTC month with sessions: what sessions that began by then
-- had cost, in USD as estimated, and the budget as the guard last knew it (NULL: it has decided nothing this month).
WITH month AS (
    -- Of UTC, whatever the session's time zone is.
    SELECT date_trunc('month', make_timestamp(epoch_us(now()))) AS start
),
days AS (
    SELECT date_trunc('day', make_timestamp(epoch_us(started_at))) AS day, sum(usd) AS usd
    FROM session_cost
    WHERE target = '${target}' AND state = 'estimated'
        AND make_timestamp(epoch_us(started_at)) >= (SELECT start FROM month)
    GROUP BY day
),
budget AS (
    SELECT arg_max(budget_usd, recorded_at) AS usd
    FROM budget_decisions
    WHERE target = '${target}' AND scope = 'month' AND make_timestamp(epoch_us(period_start)) = (SELECT start FROM month)
)
SELECT
    day AS time,
    (sum(days.usd) OVER (ORDER BY day))::DOUBLE AS spent,
    budget.usd::DOUBLE AS budget
FROM days, budget
ORDER BY day;
