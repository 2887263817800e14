-- name: add_token
INSERT INTO audit_token (hash, holder, expires_at, session) VALUES ($1, $2, now() + $3::interval, $4)
RETURNING expires_at;

-- name: drop_tokens
DELETE FROM audit_token WHERE expires_at <= now();

-- name: may_read
-- The right ends with the hour, and at once with the holder's own; a person's with her session, of which this is a use.
WITH used AS (
     UPDATE person_session s SET seen_at = now() FROM audit_token t
      WHERE t.hash = $1 AND t.expires_at > now()
        AND s.token = t.session AND s.ends_at > now() AND s.seen_at > now() - $2::interval
     RETURNING s.token)
SELECT EXISTS (SELECT 1 FROM audit_token t JOIN org o ON o.uscc = t.holder
                WHERE t.hash = $1 AND t.expires_at > now() AND o.auditor AND NOT o.suspended
                  AND (t.session IS NULL OR t.session IN (SELECT token FROM used)));

-- name: entry_rows
-- Where the index has entries of these hashes.
SELECT bundle, bits FROM log_term WHERE term = ANY($1::bigint[]);
