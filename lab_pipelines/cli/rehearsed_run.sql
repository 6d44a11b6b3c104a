-- Which rehearsal says what this plan asks? The newest one of the same spec and pace with the same variants as often, all closed.
SELECT run_id FROM stack_sessions
WHERE lab = $lab AND target = 'rehearsal' AND state = 'closed' AND spec_digest = $spec_digest AND pace = $pace
GROUP BY run_id
HAVING list_sort(list(variant)) = list_sort($variants)
ORDER BY max(recorded_at) DESC
LIMIT 1;
