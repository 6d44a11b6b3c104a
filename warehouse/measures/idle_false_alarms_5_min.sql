-- How often would an alert after 5 idle minutes have been wrong, in all labs before L72: the stack was needed again?
SELECT coalesce(sum(false_alarms), 0)::DOUBLE FROM idle_alerts
WHERE target = $target AND lab < 'L72' AND after_min = 5 AND signals = 'requests'
