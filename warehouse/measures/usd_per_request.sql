-- What does a request of the stage cost?
SELECT usd_per_request FROM sheet_current
WHERE session_id = $session_id AND step = $step AND stage = $stage
