-- By how many percent do Azure's bill and the estimate differ, over all sessions on this target that have both?
SELECT
    (100 * abs(sum(x_billed_usd) / nullif(sum(x_estimated_usd), 0) - 1))::DOUBLE AS percent,
    'no session on target ' || $target || ' has both a bill and an estimate' AS gap
FROM cost_current
WHERE target = $target AND x_state = 'billed' AND x_billed_usd IS NOT NULL AND x_estimated_usd IS NOT NULL
