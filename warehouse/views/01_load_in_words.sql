-- How does a person say what load a stage had? `8 users`, `burst of 64`, `2.5/s`. Of a rate that changes its mean, to three
-- digits: the schedule has no single one.
CREATE MACRO load_in_words(profile, users, offered_per_s) AS CASE
    WHEN profile = 'trace' THEN printf('trace, %.3g/s', offered_per_s)
    WHEN profile = 'rate_profile' THEN printf('mean %.3g/s', offered_per_s)
    WHEN offered_per_s IS NOT NULL THEN printf('%g/s', offered_per_s)
    WHEN profile = 'burst' THEN 'burst of ' || users
    WHEN users = 1 THEN '1 user'
    WHEN users IS NULL THEN 'a rate'
    ELSE users || ' users'
END;
