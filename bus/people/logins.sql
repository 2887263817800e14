-- name: forget_logins
DELETE FROM login WHERE begun_at < now() - $1::interval;

-- name: begin
-- Bounded: whoever begins more than that waits until older ones have ended.
INSERT INTO login (handle, redirect_uri) SELECT $1, $2 WHERE (SELECT count(*) FROM login) < $3 RETURNING begun_at;

-- name: take
DELETE FROM login WHERE handle = $1 AND begun_at > now() - $2::interval RETURNING redirect_uri;

-- name: person
SELECT p.id, p.uscc, p.role, p.name, p.state, o.auditor, o.operator, o.suspended
  FROM person p JOIN org o USING (uscc) WHERE p.id = $1;

-- name: trim
-- Those that are over, and of the person's own all but the newest.
DELETE FROM person_session
 WHERE ends_at <= now() OR seen_at <= now() - $2::interval
    OR token IN (SELECT token FROM person_session WHERE person = $1 ORDER BY begun_at DESC OFFSET $3);

-- name: open
-- Nobody whom a suspension met meanwhile: both statements lock her row.
INSERT INTO person_session (token, person, ends_at)
SELECT $2, p.id, now() + $3::interval FROM person p WHERE p.id = $1 AND p.state = 'ACTIVE' FOR SHARE
RETURNING ends_at;

-- name: seen
-- One statement looks and counts the idle time anew: what a suspension removed is not found.
UPDATE person_session s SET seen_at = now()
  FROM person p JOIN org o USING (uscc)
 WHERE s.token = $1 AND s.ends_at > now() AND s.seen_at > now() - $2::interval AND p.id = s.person
RETURNING p.id, p.uscc, p.role, p.name, p.state, o.auditor, o.operator, o.suspended, s.ends_at;

-- name: close
DELETE FROM person_session WHERE token = $1 RETURNING person;
