-- What did each session cost its lab's namespace, by estimate and by bill, and what was bought with it?
-- One row per session that was released and has a cost. Its labels are those by which Azure's cost analysis splits a
-- cluster's bill.
-- A cost is NULL, never zero, where no price is known, and `usd_billed` where there is no bill, or one that was not in
-- dollars. GPU-hours are of the GPUs that the lab used, NULL where the run did not record them.
CREATE VIEW namespace_cost AS
WITH sessions AS (
    SELECT * FROM stack_sessions
    WHERE state = 'closed'
    QUALIFY row_number() OVER (PARTITION BY session_id ORDER BY recorded_at DESC) = 1
),
cost AS (
    SELECT
        session_id,
        sum(node_hours) FILTER (state = 'estimated') AS node_hours,
        coalesce(sum(node_hours) FILTER (state = 'estimated' AND part = 'idle'), 0) AS idle_hours,
        count(*) FILTER (state = 'estimated') = count(usd) FILTER (state = 'estimated') AS priced,
        sum(usd) FILTER (state = 'estimated') AS usd,
        sum(usd) FILTER (state = 'estimated' AND part = 'serve') AS serve_usd,
        CASE WHEN count(*) FILTER (state = 'billed') = count(usd) FILTER (state = 'billed')
            THEN sum(usd) FILTER (state = 'billed')
        END AS billed_usd
    FROM session_cost
    GROUP BY session_id
),
served AS (
    SELECT session_id, count(*) AS requests_ok, sum(output_tokens)::BIGINT AS output_tokens
    FROM requests
    WHERE outcome = 'ok'
    GROUP BY session_id
)
SELECT
    s.lab, s.variant, s.trial, s.target, s.engine, s.provenance, s.pace, s.time_scale, s.run_id, s.session_id,
    s.namespace,
    s.cost_labels ->> '$."cost-center"' AS cost_center,
    s.cost_labels ->> '$.phase' AS phase,
    s.sku,
    c.node_hours::DOUBLE AS node_hours,
    c.node_hours::DOUBLE * s.gpus AS gpu_hours,
    c.idle_hours::DOUBLE AS idle_hours,
    CASE WHEN c.priced THEN c.usd END AS usd_estimated,
    CASE WHEN c.priced THEN coalesce(c.serve_usd, 0) END AS usd_served,
    c.billed_usd AS usd_billed,
    coalesce(r.requests_ok, 0) AS requests_ok,
    coalesce(r.output_tokens, 0) AS output_tokens
FROM sessions AS s
JOIN cost AS c USING (session_id)
LEFT JOIN served AS r USING (session_id);
