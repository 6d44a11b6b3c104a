-- Which runs are there, and how did each end up? One row per session with results; a run has one for each variant and
-- turn. `position` counts them from 1, in the order in which they were walked; `turns` is how many of the run's sessions
-- are of the same variant, of which `latest` marks at most one. A session that served no load
-- (its engine was refused, or its lab sends none) has NULL where there would be numbers of stages. A run that is marked
-- invalid is here, with its cost and its `invalid_reason`, and is no `latest`.
CREATE VIEW run_overview AS
WITH stages AS (
    SELECT
        session_id,
        max(ended_at) AS ended_at,
        count(*) AS stages,
        max(users) AS users_max,
        max(offered_per_s) AS offered_per_s_max,
        sum(requests_in_stage)::BIGINT AS requests,
        sum(requests_ok)::BIGINT AS requests_ok,
        sum(output_tokens)::BIGINT AS output_tokens,
        max(output_tokens / nullif(duration_s, 0)) FILTER (request_kind IS DISTINCT FROM 'http')
            AS output_tokens_per_s_max
    FROM load_stages
    GROUP BY session_id
),
sessions AS (
    SELECT
        session_id, max(model) AS model, max(sku) AS sku, max(cold_start_s) AS cold_start_s, max(held_s) AS held_s,
        min(requested_at) AS requested_at, max(refusal) AS refusal, max(model_range) AS model_range
    FROM stack_sessions
    GROUP BY session_id
),
cost AS (
    -- A run that was cut has no sheet, and has cost its money all the same.
    SELECT session_id, CASE WHEN count(*) = count(usd) THEN sum(usd) END AS usd FROM session_money GROUP BY session_id
),
sheet AS (
    SELECT session_id, idle_share, usd_per_1k_tokens FROM sheet_current WHERE stage IS NULL
),
gaps AS (
    SELECT session_id, count(DISTINCT measure) AS measures_with_gaps
    FROM metric_gaps
    GROUP BY session_id
),
verdicts AS (
    SELECT
        session_id,
        count(*) FILTER (verdict = 'confirmed') AS confirmed,
        count(*) FILTER (verdict = 'refuted') AS refuted,
        count(*) FILTER (verdict = 'inconclusive') AS inconclusive
    FROM findings
    GROUP BY session_id
)
SELECT
    r.lab, r.variant, r.trial, r.target, r.engine, r.provenance, r.pace, r.time_scale, r.run_id, r.session_id,
    r.started_at, r.recorded_at,
    row_number() OVER (PARTITION BY r.run_id ORDER BY coalesce(sessions.requested_at, r.started_at), r.session_id)
        AS position,
    count(*) OVER (PARTITION BY r.run_id, r.lab, r.variant, r.target, r.pace, r.time_scale, r.engine, r.provenance)
        AS turns,
    stages.* EXCLUDE (session_id),
    EXISTS (FROM latest_run AS l WHERE l.session_id = r.session_id) AS latest,
    sessions.model,
    sessions.sku,
    sessions.refusal,
    r.invalid_reason,
    sessions.model_range,
    sessions.cold_start_s,
    sessions.held_s,
    cost.usd,
    sheet.idle_share,
    sheet.usd_per_1k_tokens,
    coalesce(gaps.measures_with_gaps, 0) AS measures_with_gaps,
    coalesce(verdicts.confirmed, 0) AS confirmed,
    coalesce(verdicts.refuted, 0) AS refuted,
    coalesce(verdicts.inconclusive, 0) AS inconclusive
FROM session_results AS r
LEFT JOIN stages USING (session_id)
LEFT JOIN sessions USING (session_id)
LEFT JOIN cost USING (session_id)
LEFT JOIN sheet USING (session_id)
LEFT JOIN gaps USING (session_id)
LEFT JOIN verdicts USING (session_id);
