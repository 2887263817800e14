-- name: take
INSERT INTO seen_request (request, until)
SELECT $1, clock_timestamp() + $2 FROM set_config('synchronous_commit', 'off', true)
ON CONFLICT DO NOTHING
RETURNING 1

-- name: sweep
DELETE FROM seen_request WHERE until < clock_timestamp()
