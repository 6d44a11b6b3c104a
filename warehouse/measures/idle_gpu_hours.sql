-- Over all labs before L72, for how many GPU-hours was a stack up while no request ran? Cold starts are apart.
SELECT coalesce(sum(gpu_hours), 0) FROM idle_intervals WHERE target = $target AND lab < 'L72' AND gpus > 0 AND kind <> 'cold_start'
