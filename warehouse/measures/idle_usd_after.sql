-- Over all labs before L72, what did it cost to keep stacks after their last request?
SELECT sum(usd) AS usd, 'no lab before L72 has a cost on target ' || $target AS gap FROM idle_intervals WHERE target = $target AND lab < 'L72' AND gpus > 0 AND kind = 'after_load'
