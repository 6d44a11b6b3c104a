-- Which share of the stage's requests did the server refuse?
SELECT count(*) FILTER (http_status = 400) / count(*) FROM requests
WHERE session_id = $session_id AND step = $step AND stage = $stage AND outcome <> 'cut'
