-- What did a rehearsal say, and what came of the lab's real run? One row per session, stage and quantity.
--
-- The one place where two targets meet. Each session on another target stands beside the newest rehearsal of its lab and
-- variant, whether that came before or after: one of the same pace if there is any, and of its turns the same one, or the
-- nearest. Stages are matched by step and load.
-- `step` is NULL for what is told of the whole session. Durations and sums of money depend on the pace, and are compared
-- only where it is the same. `measured` is what the run gave; where a modelled server ran, that is no measurement, and
-- `comparison` says so. `error` = forecast / measured - 1. `supported`: both samples are large enough for the quantile.
-- The columns without a prefix are the run's, those that begin with forecast_ the rehearsal's.
CREATE VIEW forecast_vs_measured AS
WITH rehearsals AS (
    -- All turns of the newest one.
    SELECT f.lab, f.variant, f.pace, f.trial, f.session_id, r.recorded_at AS run_recorded_at
    FROM session_results AS f
    JOIN run_sessions AS r USING (lab, variant, target, pace, time_scale, engine, provenance, run_id)
    WHERE f.target = 'rehearsal' AND f.invalid_reason IS NULL
    QUALIFY dense_rank() OVER (PARTITION BY f.lab, f.variant, f.pace ORDER BY r.recorded_at DESC, r.run_id) = 1
),
pairs AS (
    SELECT m.session_id, m.recorded_at, f.session_id AS forecast_session_id, f.pace = m.pace AS same_pace
    FROM session_results AS m
    JOIN rehearsals AS f USING (lab, variant)
    WHERE m.target <> 'rehearsal' AND m.invalid_reason IS NULL
    QUALIFY row_number() OVER (
        PARTITION BY m.session_id
        ORDER BY f.pace = m.pace DESC, f.run_recorded_at DESC, abs(f.trial - m.trial), f.trial, f.session_id
    ) = 1
),
stages AS (
    -- A step may apply the same load twice; `nth` tells such stages apart, whichever of them a pace leaves out.
    SELECT *, row_number() OVER (PARTITION BY session_id, step, profile, load ORDER BY stage) AS nth
    FROM stage_table
),
of_stages AS (
    SELECT
        m.session_id, m.step, m.stage, m.users, m.offered_per_s, m.profile, m.load, f.model_range AS model_range,
        f.session_id AS forecast_session_id, p.same_pace, p.recorded_at,
        unnest([
            'output_tokens_per_s', 'ttft_p50_s', 'ttft_p95_s', 'tpot_p50_s', 'e2e_p50_s', 'usd_per_1k_tokens',
            'duration_s'
        ]) AS quantity,
        unnest([
            f.output_tokens_per_s, f.ttft_p50_s, f.ttft_p95_s, f.tpot_p50_s, f.e2e_p50_s, f.usd_per_1k_tokens,
            f.duration_s
        ]) AS forecast,
        unnest([
            -- A client that is the bottleneck asks for fewer tokens than the stack can give, and makes each dearer.
            CASE WHEN m.client_fault IS NULL THEN m.output_tokens_per_s END,
            m.ttft_p50_s, m.ttft_p95_s, m.tpot_p50_s, m.e2e_p50_s,
            CASE WHEN m.client_fault IS NULL THEN m.usd_per_1k_tokens END, m.duration_s
        ]) AS measured,
        unnest([true, true, f.ttft_p95_supported AND m.ttft_p95_supported, true, true, true, true]) AS supported
    FROM pairs AS p
    JOIN stages AS m ON m.session_id = p.session_id
    JOIN stages AS f
        ON f.session_id = p.forecast_session_id
        AND f.step = m.step AND f.profile = m.profile AND f.load = m.load AND f.nth = m.nth
),
sessions AS (
    SELECT
        s.session_id, max(s.cold_start_s) AS cold_start_s, max(s.cold_start_s) + max(s.held_s) AS duration_s,
        max(c.usd)::DOUBLE AS usd, max(s.model_range) AS model_range
    FROM stack_sessions AS s
    LEFT JOIN sheet_current AS c ON c.session_id = s.session_id AND c.stage IS NULL
    GROUP BY s.session_id
),
of_sessions AS (
    SELECT
        m.session_id, f.model_range, f.session_id AS forecast_session_id, p.same_pace, p.recorded_at,
        unnest(['cold_start_s', 'duration_s', 'usd']) AS quantity,
        unnest([f.cold_start_s, f.duration_s, f.usd]) AS forecast,
        unnest([m.cold_start_s, m.duration_s, m.usd]) AS measured,
        true AS supported
    FROM pairs AS p
    JOIN sessions AS m ON m.session_id = p.session_id
    JOIN sessions AS f ON f.session_id = p.forecast_session_id
),
compared AS (
    FROM of_stages
    UNION ALL BY NAME
    FROM of_sessions
)
SELECT
    m.lab, m.variant, m.trial, m.target, m.engine, m.provenance, m.pace, m.time_scale, m.run_id, c.session_id,
    c.recorded_at,
    c.step, c.stage, c.users, c.offered_per_s, c.load,
    c.quantity,
    c.forecast,
    c.measured,
    c.forecast / nullif(c.measured, 0) - 1 AS error,
    c.supported,
    CASE m.provenance WHEN 'measured' THEN 'model against measurement' ELSE 'model against model' END AS comparison,
    c.model_range,
    f.run_id AS forecast_run_id,
    c.forecast_session_id,
    f.recorded_at AS forecast_recorded_at,
    f.pace AS forecast_pace,
    f.provenance AS forecast_provenance
FROM compared AS c
JOIN session_results AS m ON m.session_id = c.session_id
JOIN session_results AS f ON f.session_id = c.forecast_session_id
WHERE (c.forecast IS NOT NULL OR c.measured IS NOT NULL)
    AND (c.same_pace OR c.quantity NOT IN ('duration_s', 'usd'));
