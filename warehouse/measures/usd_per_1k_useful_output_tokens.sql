-- What do a thousand useful output tokens of the stage cost: those of requests within the lab's objective? The whole stage is
-- paid by them.
SELECT
    usd_per_1k_useful_output_tokens AS usd,
    CASE
        WHEN usd IS NULL THEN 'the stage has no price'
        WHEN client_fault IS NOT NULL THEN 'the client was over its error budget: ' || client_fault
        WHEN useful_output_tokens IS NULL THEN 'the lab has no objective'
        ELSE 'no request of the stage met the objective'
    END AS gap
FROM sheet_current
LEFT JOIN client_faults USING (session_id, step, stage)
WHERE session_id = $session_id AND step = $step AND stage = $stage
