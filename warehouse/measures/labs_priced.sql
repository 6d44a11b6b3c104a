-- How many labs' namespaces on this target have a cost?
SELECT count(DISTINCT namespace)::DOUBLE FROM namespace_cost WHERE target = $target AND usd_estimated IS NOT NULL
