-- name: acts
-- When each act was done to these documents last.
SELECT rule, act, max(at) AS at FROM rule_act WHERE rule = ANY($1::uuid[]) GROUP BY rule, act;
