-- What does Azure's bill say today? Of each line the newest answer; `cost` is NULL for a line that is no longer there.
CREATE VIEW bill_current AS
SELECT *
FROM bill_days
QUALIFY row_number() OVER (
    PARTITION BY target, usage_date, resource_id, tag_lab, currency ORDER BY asked_at DESC, recorded_at DESC
) = 1;
