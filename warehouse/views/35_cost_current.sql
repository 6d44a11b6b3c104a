-- Which cost records hold today? Of each session and state the newest; `usd` is what they say in dollars.
-- `usd` is NULL, never zero, where no price is known or the bill was not in dollars.
CREATE VIEW cost_current AS
SELECT *, CASE x_state WHEN 'billed' THEN x_billed_usd ELSE ListCost END AS usd
FROM cost_records
QUALIFY recorded_at = max(recorded_at) OVER (PARTITION BY session_id, x_state);
