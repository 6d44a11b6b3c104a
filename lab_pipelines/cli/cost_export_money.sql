-- What does an export add up to? By currency, state and where the numbers come from, as the file itself says.
SELECT BillingCurrency, x_state, x_provenance, count(*) AS rows, sum(BilledCost::DECIMAL(38, 9)) AS cost
FROM exported
GROUP BY ALL
ORDER BY ALL
