-- Which share does it serve at least in the worst of the scenarios?
SELECT
    CASE WHEN count(*) = count(served_share_low) THEN min(served_share_low) END AS value,
    'a rate that occurs has no stage in this pace' AS gap
FROM capacity_results WHERE session_id = $session_id AND true
