-- Over all labs before L72, what did idle time cost before, between and within their loads?
SELECT sum(usd) AS usd, 'no lab before L72 has a cost on target ' || $target AS gap FROM idle_intervals WHERE target = $target AND lab < 'L72' AND gpus > 0 AND kind IN ('before_load', 'between_loads', 'in_stage')
