-- What did the budget guard decide, and on what grounds? One row when a budget's state changes, one for each lease that is
-- refused, and two for each that is cut: before, and with its outcome. docs/budget.md reads one aloud.
CREATE TABLE budget_decisions (
    lab             VARCHAR NOT NULL,      -- all: `scope` names the budget, `of_lab` whom the action is about
    run_id          VARCHAR NOT NULL,      -- the batch of decisions that were published together
    target          VARCHAR NOT NULL,      -- local, kubernetes, aks
    provenance      VARCHAR NOT NULL CHECK (provenance IN ('measured', 'modelled')),
    recorded_at     TIMESTAMPTZ NOT NULL,
    tick_at         TIMESTAMPTZ NOT NULL,  -- the clock of the decision
    scope           VARCHAR NOT NULL,      -- month: all labs together; or a lab
    period_start    TIMESTAMPTZ NOT NULL,  -- a month of UTC, or for a lab a year
    period_end      TIMESTAMPTZ NOT NULL,
    budget_usd      DECIMAL(18, 6) NOT NULL,
    closed_usd      DECIMAL(18, 6) NOT NULL,  -- sessions that were released, as estimated, or as billed where that is more
    billed_more_usd DECIMAL(18, 6) NOT NULL,  -- of it, what settled bills say beyond the estimates
    open_usd        DECIMAL(18, 6) NOT NULL,  -- sessions that are up, until now
    pools_usd       DECIMAL(18, 6) NOT NULL,  -- nodes of ours that no session accounts for
    spent_usd       DECIMAL(18, 6) NOT NULL,  -- the three together
    projected_usd   DECIMAL(18, 6) NOT NULL,  -- what leases that were good will cost until they end
    committed_usd   DECIMAL(18, 6) NOT NULL,  -- spent and projected
    unknown         VARCHAR[] NOT NULL,    -- what could not be told, and is in no sum
    state_before    VARCHAR NOT NULL CHECK (state_before IN ('ok', 'warn', 'refuse', 'cut')),
    state           VARCHAR NOT NULL CHECK (state IN ('ok', 'warn', 'refuse', 'cut')),
    guard           VARCHAR NOT NULL CHECK (guard IN ('warn', 'refuse', 'cut')),  -- how far it may go
    budgets         VARCHAR NOT NULL,      -- its settings, JSON
    action          VARCHAR NOT NULL CHECK (action IN ('tell', 'refuse', 'cut')),
    of_lab          VARCHAR,               -- who is refused or cut; NULL: nobody, or a pool that no lab holds
    of_run          VARCHAR,
    of_pool         VARCHAR,               -- the pool that is cut, where no run holds it
    reason          VARCHAR NOT NULL,
    outcome         VARCHAR CHECK (outcome IN ('withheld', 'asked', 'done', 'failed')),  -- withheld: the guard may not go so far
    detail          VARCHAR,               -- what came of it, in words
    CHECK ((action = 'tell') = (outcome IS NULL)),
    CHECK (spent_usd = closed_usd + open_usd + pools_usd),
    CHECK (committed_usd = spent_usd + projected_usd)
);
