-- Where did the money go: what share of the node time, and how many dollars, went into serving and into waiting? Of each
-- variant's newest run, all its turns together.
SELECT
    lab, variant, target, pace, provenance, time_scale, state, part,
    round(sum(c.node_hours), 4) AS node_hours,
    round(CASE WHEN count(*) = count(c.usd) THEN sum(c.usd) END, 6) AS usd,
    round(
        sum(c.node_hours)::DOUBLE
            / sum(sum(c.node_hours)) OVER (
                PARTITION BY lab, variant, target, pace, provenance, time_scale, l.engine, l.session_id, state
            ),
        3
    ) AS share
FROM latest_run AS l
JOIN session_cost AS c USING (lab, variant, target, pace, time_scale, engine, provenance, run_id)
GROUP BY lab, variant, target, pace, provenance, time_scale, l.engine, l.session_id, state, part
ORDER BY lab, variant, target, pace, l.session_id, state, node_hours DESC;
