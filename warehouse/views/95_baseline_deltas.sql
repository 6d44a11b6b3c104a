-- How far is each lab from the year's baseline, L06 in the same place? One row per quantity of a load stage, of the
-- newest sessions; stages of plain GETs have no tokens and are not here.
--
-- The baseline of a session is L06's on the same target: of the same provenance if there is one, then the pinned one
-- rather than L06's newest run (`baseline_file` NULL: not pinned), then of the same engine, time scale and pace.
-- `comparison` says what stands against what:
--   same load  the stage against the baseline's with as many users, or at the same rate
--   peak       the session's best stage against the baseline's, whatever their loads: the fastest for throughput, the
--              cheapest for money. A latency has none: at another load it is another question.
--   none       the baseline has no stage with this load, or there is no baseline
-- `delta` = value - baseline_value and `ratio` = value / baseline_value stand only where `comparable`; `reason` says
-- why not; of a stage whose load generator was over its own error budget nothing is.
-- `caveat` names what else differs and may matter; NULL where nothing does. `better`: which direction is good.
-- `supported`: both samples are large enough for the quantile (as in stage_table).
CREATE VIEW baseline_deltas AS
WITH newest AS (
    -- Where the load generator was over its own error budget, throughput and price are but bounds.
    SELECT
        t.* REPLACE (
            CASE WHEN t.client_fault IS NULL THEN t.output_tokens_per_s END AS output_tokens_per_s,
            CASE WHEN t.client_fault IS NULL THEN t.usd_per_1k_tokens END AS usd_per_1k_tokens
        ),
        r.recorded_at
    FROM stage_table AS t
    JOIN latest_run AS r USING (session_id)
    WHERE t.request_kind = 'completion'
),
base_stages AS (
    SELECT
        digest AS base, target, provenance, engine, pace, time_scale, run_id, variant, step, stage, users,
        offered_per_s,
        load_in_words(NULL, users, offered_per_s) AS load,
        output_tokens_per_s, ttft_p50_s, ttft_p95_s, requests >= 72 AS ttft_p95_supported, tpot_p50_s,
        usd_per_1k_tokens, file, digest, pinned_at AS told_at
    FROM baselines
    WHERE lab = 'L06'
    QUALIFY rank() OVER (PARTITION BY target ORDER BY file DESC, pinned_at DESC, digest) = 1
    UNION ALL BY NAME
    SELECT
        session_id AS base, target, provenance, engine, pace, time_scale, run_id, variant, step, stage, users,
        offered_per_s, load, output_tokens_per_s, ttft_p50_s, ttft_p95_s, ttft_p95_supported, tpot_p50_s,
        usd_per_1k_tokens, recorded_at AS told_at
    FROM newest
    WHERE lab = 'L06' AND profile IN ('ramp', 'constant', 'rate')
),
bases AS (
    SELECT
        base, target, provenance, engine, pace, time_scale, run_id,
        any_value(file) AS file, any_value(digest) AS digest, max(told_at) AS told_at
    FROM base_stages
    GROUP BY ALL
),
chosen AS (
    SELECT s.session_id, b.*
    FROM (SELECT DISTINCT session_id, target, provenance, engine, pace, time_scale FROM newest) AS s
    JOIN bases AS b ON b.target = s.target AND b.base <> s.session_id
    QUALIFY row_number() OVER (
        PARTITION BY s.session_id
        ORDER BY
            b.provenance = s.provenance DESC, b.file IS NOT NULL DESC, b.engine = s.engine DESC,
            b.time_scale = s.time_scale DESC, b.pace = s.pace DESC, b.told_at DESC, b.base
    ) = 1
),
pairs AS (
    SELECT
        n.*, b.variant AS baseline_variant, b.step AS baseline_step, b.stage AS baseline_stage, b.load AS baseline_load,
        {'tokens': b.output_tokens_per_s, 'ttft_p50': b.ttft_p50_s, 'ttft_p95': b.ttft_p95_s, 'tpot': b.tpot_p50_s,
         'usd': b.usd_per_1k_tokens, 'p95_supported': coalesce(b.ttft_p95_supported, true)} AS b
    FROM newest AS n
    LEFT JOIN chosen AS c USING (session_id)
    LEFT JOIN base_stages AS b
        ON b.base = c.base
        AND n.profile IN ('ramp', 'constant', 'rate')
        AND b.users IS NOT DISTINCT FROM n.users
        AND b.offered_per_s IS NOT DISTINCT FROM n.offered_per_s
    QUALIFY row_number() OVER (PARTITION BY n.session_id, n.step, n.stage ORDER BY b.variant, b.step, b.stage) = 1
),
same_load AS (
    SELECT
        session_id, step, stage, baseline_variant, baseline_step, baseline_stage, baseline_load,
        unnest(['output_tokens_per_s', 'ttft_p50_s', 'ttft_p95_s', 'tpot_p50_s', 'usd_per_1k_tokens']) AS quantity,
        unnest([output_tokens_per_s, ttft_p50_s, ttft_p95_s, tpot_p50_s, usd_per_1k_tokens]) AS value,
        unnest([b.tokens, b.ttft_p50, b.ttft_p95, b.tpot, b.usd]) AS baseline_value,
        unnest([true, true, ttft_p95_supported AND b.p95_supported, true, true]) AS supported
    FROM pairs
),
best AS (
    -- Rank 1 of its session, or of its baseline, by speed and by price.
    SELECT *, 'output_tokens_per_s' AS quantity, output_tokens_per_s AS value
    FROM newest
    QUALIFY row_number() OVER (PARTITION BY session_id ORDER BY output_tokens_per_s DESC NULLS LAST, step, stage) = 1
    UNION ALL BY NAME
    SELECT *, 'usd_per_1k_tokens' AS quantity, usd_per_1k_tokens AS value
    FROM newest
    QUALIFY row_number() OVER (PARTITION BY session_id ORDER BY usd_per_1k_tokens NULLS LAST, step, stage) = 1
),
best_bases AS (
    SELECT *, 'output_tokens_per_s' AS quantity, output_tokens_per_s AS value
    FROM base_stages
    QUALIFY row_number() OVER (PARTITION BY base ORDER BY output_tokens_per_s DESC NULLS LAST, step, stage) = 1
    UNION ALL BY NAME
    SELECT *, 'usd_per_1k_tokens' AS quantity, usd_per_1k_tokens AS value
    FROM base_stages
    QUALIFY row_number() OVER (PARTITION BY base ORDER BY usd_per_1k_tokens NULLS LAST, step, stage) = 1
),
compared AS (
    SELECT *, CASE WHEN baseline_stage IS NULL THEN 'none' ELSE 'same load' END AS comparison
    FROM same_load
    UNION ALL BY NAME
    SELECT
        n.session_id, n.step, n.stage,
        b.variant AS baseline_variant, b.step AS baseline_step, b.stage AS baseline_stage, b.load AS baseline_load,
        n.quantity, n.value, b.value AS baseline_value, true AS supported, 'peak' AS comparison
    FROM best AS n
    JOIN chosen AS c USING (session_id)
    JOIN best_bases AS b ON b.base = c.base AND b.quantity = n.quantity
),
judged AS (
    SELECT
        n.lab, n.variant, n.trial, n.target, n.engine, n.provenance, n.pace, n.time_scale, n.run_id, n.session_id,
        n.recorded_at, n.step, n.stage, n.profile, n.users, n.offered_per_s, n.load,
        d.comparison, d.quantity,
        CASE d.quantity WHEN 'output_tokens_per_s' THEN 'tokens/s' WHEN 'usd_per_1k_tokens' THEN 'USD' ELSE 's' END
            AS unit,
        CASE d.quantity WHEN 'output_tokens_per_s' THEN 'higher' ELSE 'lower' END AS better,
        d.value, d.baseline_value, d.supported,
        CASE
            WHEN c.base IS NULL THEN 'L06 has no run on ' || n.target || ' to compare with'
            WHEN d.comparison = 'none' THEN 'the baseline has no stage with ' || n.load
            WHEN c.provenance <> n.provenance THEN n.provenance || ' against a ' || c.provenance || ' baseline'
            WHEN n.client_fault IS NOT NULL THEN 'client over its error budget: ' || n.client_fault
            WHEN d.value IS NULL AND d.baseline_value IS NULL THEN 'not known on either side'
            WHEN d.value IS NULL THEN 'not known'
            WHEN d.baseline_value IS NULL THEN 'the baseline does not know it'
            WHEN d.baseline_value = 0 THEN 'the baseline is zero'
        END AS reason,
        nullif(concat_ws(
            '; ',
            CASE WHEN c.engine <> n.engine THEN 'engine ' || n.engine || ' against ' || c.engine END,
            CASE WHEN c.time_scale <> n.time_scale THEN printf('%g x against %g x', n.time_scale, c.time_scale) END,
            CASE WHEN c.pace <> n.pace THEN 'pace ' || n.pace || ' against ' || c.pace END
        ), '') AS caveat,
        d.baseline_variant, d.baseline_step, d.baseline_stage, d.baseline_load,
        c.run_id AS baseline_run_id, c.engine AS baseline_engine, c.provenance AS baseline_provenance,
        c.pace AS baseline_pace, c.time_scale AS baseline_time_scale,
        c.file AS baseline_file, c.digest AS baseline_digest
    FROM compared AS d
    JOIN newest AS n USING (session_id, step, stage)
    LEFT JOIN chosen AS c USING (session_id)
)
SELECT
    *,
    CASE WHEN reason IS NULL THEN value - baseline_value END AS delta,
    CASE WHEN reason IS NULL THEN value / baseline_value END AS ratio,
    reason IS NULL AS comparable
FROM judged;
