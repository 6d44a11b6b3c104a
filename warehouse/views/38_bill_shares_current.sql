-- Whose cost is each line of the bill today? Of each day the rows of the newest reconciliation that changed any.
-- `session_id` NULL: no rule could place it.
CREATE VIEW bill_shares_current AS
SELECT *
FROM bill_shares
QUALIFY recorded_at = max(recorded_at) OVER (PARTITION BY target, usage_date);
