-- How many labs' namespaces on this target have a cost?
SELECT count(*)::DOUBLE FROM cost_by_namespace WHERE target = $target AND usd_estimated IS NOT NULL
