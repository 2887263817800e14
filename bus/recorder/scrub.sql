-- name: state
SELECT size, root FROM log_state WHERE id = 1;

-- name: terms
SELECT term, day, bundle, bits FROM log_term WHERE bundle BETWEEN $1 AND $2;
