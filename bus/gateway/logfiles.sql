-- name: add_token
INSERT INTO audit_token (hash, holder, expires_at) VALUES ($1, $2, now() + $3::interval) RETURNING expires_at;

-- name: drop_tokens
DELETE FROM audit_token WHERE expires_at <= now();

-- name: may_read
-- The right ends with the hour, and at once with the holder's own.
SELECT EXISTS (SELECT 1 FROM audit_token t JOIN org o ON o.uscc = t.holder
                WHERE t.hash = $1 AND t.expires_at > now() AND o.auditor AND NOT o.suspended);

-- name: entry_rows
-- Where the index has entries of these hashes.
SELECT bundle, bits FROM log_term WHERE term = ANY($1::bigint[]);
