-- Over all labs before L72, what did the time cost in which a stack was up and no request ran?
SELECT sum(usd) AS usd, 'no lab before L72 has a cost on target ' || $target AS gap FROM idle_intervals WHERE target = $target AND lab < 'L72' AND gpus > 0 AND kind <> 'cold_start'
