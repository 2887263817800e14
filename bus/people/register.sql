-- name: org
SELECT name, auditor, operator, suspended, revision FROM org WHERE uscc = $1;

-- name: lock_org
SELECT name, suspended, revision FROM org WHERE uscc = $1 FOR UPDATE;

-- name: put_org
UPDATE org SET suspended = $2, revision = revision + 1 WHERE uscc = $1;

-- name: lock
SELECT id, uscc, role, name, state, revision FROM person WHERE id = $1 FOR UPDATE;

-- name: appoint
INSERT INTO person (id, uscc, role, name, state, revision) VALUES ($1, $2, $3, $4, 'ACTIVE', 1)
ON CONFLICT (id) DO UPDATE
   SET uscc = EXCLUDED.uscc, role = EXCLUDED.role, name = EXCLUDED.name, state = 'ACTIVE',
       revision = person.revision + 1, changed_at = now()
 WHERE person.state = 'DISMISSED' AND person.revision = $5
RETURNING revision;

-- name: change
UPDATE person SET state = $2, revision = revision + 1, changed_at = now() WHERE id = $1;

-- name: end_sessions
DELETE FROM person_session WHERE person = $1;

-- name: one
SELECT id, uscc, role, name, state, changed_at FROM person WHERE id = $1;

-- name: people
SELECT id, uscc, role, name, state, changed_at FROM person WHERE uscc = $1 OR $2 ORDER BY uscc, name, id LIMIT $3;
