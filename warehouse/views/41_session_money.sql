-- What did a session's node time cost by the best that is known: the bill where it came in dollars, else the estimate? One row
-- per session and part, as in session_cost, of one state. Whoever adds up money across sessions adds up these.
CREATE VIEW session_money AS
SELECT *
FROM session_cost
QUALIFY dense_rank() OVER (
    PARTITION BY session_id ORDER BY state = 'billed' AND usd IS NOT NULL DESC, state = 'estimated' DESC
) = 1;
