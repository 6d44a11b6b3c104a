-- What did each lab's namespace cost on each target, by estimate and by bill, and what was bought with it? One row per
-- namespace and target, over all its runs; the labels are those by which Azure's cost analysis splits a cluster's bill.
-- `usd_billed` covers the sessions that have a bill, `delta_percent` compares these alone. A cost is NULL, never zero, where
-- a session of the namespace has no price. GPU-hours are of the GPUs that the labs used, NULL where a run did not record them.
CREATE VIEW cost_by_namespace AS
WITH sessions AS (
    SELECT * FROM stack_sessions
    WHERE state = 'closed'
    QUALIFY row_number() OVER (PARTITION BY session_id ORDER BY recorded_at DESC) = 1
),
cost AS (
    SELECT
        session_id,
        sum(node_hours) FILTER (state = 'estimated') AS node_hours,
        sum(node_hours) FILTER (state = 'estimated' AND part = 'idle') AS idle_hours,
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
    s.target, s.namespace, s.lab,
    max(s.cost_labels ->> '$."cost-center"') AS cost_center,
    max(s.cost_labels ->> '$.phase') AS phase,
    string_agg(DISTINCT s.provenance, ', ' ORDER BY s.provenance) AS provenance,
    count(DISTINCT s.run_id) AS runs,
    count(*) AS sessions,
    sum(c.node_hours)::DOUBLE AS node_hours,
    CASE WHEN count(*) = count(s.gpus) THEN sum(c.node_hours::DOUBLE * s.gpus) END AS gpu_hours,
    CASE WHEN bool_and(c.priced) THEN sum(c.usd) END AS usd_estimated,
    sum(c.billed_usd) AS usd_billed,
    count(c.billed_usd) AS sessions_billed,
    100 * (sum(c.billed_usd) / nullif(sum(c.usd) FILTER (c.billed_usd IS NOT NULL), 0) - 1)::DOUBLE AS delta_percent,
    sum(c.idle_hours)::DOUBLE / nullif(sum(c.node_hours), 0)::DOUBLE AS idle_share,
    CASE WHEN bool_and(c.priced) THEN sum(c.serve_usd)::DOUBLE / nullif(sum(c.usd), 0)::DOUBLE END AS efficiency,
    sum(r.requests_ok)::BIGINT AS requests_ok,
    CASE WHEN bool_and(c.priced) THEN sum(c.usd)::DOUBLE / nullif(sum(r.requests_ok), 0)::DOUBLE END AS usd_per_request,
    CASE WHEN bool_and(c.priced) THEN 1000 * sum(c.usd)::DOUBLE / nullif(sum(r.output_tokens), 0)::DOUBLE END
        AS usd_per_1k_output_tokens
FROM sessions AS s
JOIN cost AS c USING (session_id)
LEFT JOIN served AS r USING (session_id)
GROUP BY s.target, s.namespace, s.lab;
