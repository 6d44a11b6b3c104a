-- What does every configuration cost that was tested, by load and quantity? Those that were chosen ($… NULL: all).
SELECT *
FROM reference_sheet
WHERE ($lab::VARCHAR IS NULL OR lab = $lab)
    AND ($target::VARCHAR IS NULL OR target = $target)
    AND ($sku::VARCHAR IS NULL OR sku = $sku)
ORDER BY
    target, lab, variant, sku, priority, pace, engine, provenance, newest_at, values_digest,
    step IS NULL, step, stage, quantity
