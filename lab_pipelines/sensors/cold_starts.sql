-- How long do the last ten cold starts from no node to the first token take on each machine type of a target?
SELECT sku, median(cold_start_s) AS cold_start_s, count(*) AS sessions
FROM (
    SELECT sku, cold_start_s
    FROM stack_sessions
    WHERE target = $target AND state = 'closed' AND sku IS NOT NULL AND node_ready_s IS NOT NULL AND first_token_s IS NOT NULL
    QUALIFY row_number() OVER (PARTITION BY sku ORDER BY recorded_at DESC) <= 10
)
GROUP BY sku
