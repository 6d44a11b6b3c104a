-- What does a request of the stage cost?
SELECT usd_per_request FROM finops_sheet
WHERE session_id = $session_id AND step = $step AND stage = $stage
ORDER BY recorded_at DESC LIMIT 1
