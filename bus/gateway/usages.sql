-- name: names
SELECT uscc, name FROM org WHERE uscc = ANY($1::text[]);
