-- name: expired
-- Locked: who acts on one of them now is waited for by the next look.
SELECT id, kind, revision, state, hash, body FROM rule WHERE until < $1 ORDER BY until, id LIMIT $2
   FOR UPDATE SKIP LOCKED;

-- name: waiting
-- A page of what somebody has to answer: those states alone, as the index `rule_waiting` has them.
SELECT id, kind, revision, state, hash, body FROM rule
 WHERE kind IN ('agreement', 'correction', 'dispute')
   AND state IN ('SUBMITTED', 'ACCEPTED', 'APPROVED', 'REQUESTED', 'DISPUTED', 'COORDINATED')
   AND id > $1 ORDER BY id LIMIT $2;

-- name: reached
-- Agreements in force whose purpose is reached, and that was not said yet. Days as texts: they sort as days do.
SELECT r.id, r.kind, r.grantor, r.grantee, r.item, (r.body->>'purpose_until')::date AS day FROM rule r
 WHERE r.kind = 'agreement' AND r.state IN ('ACTIVE', 'SUSPENDED') AND r.body->>'purpose_until' < $1
   AND NOT EXISTS (SELECT 1 FROM due d WHERE d.rule = r.id AND d.name = $2)
 ORDER BY r.id LIMIT $3;

-- name: outlived
-- Takes what is to be deleted by now, with how many records it is.
DELETE FROM data_life d USING rule r
 WHERE r.id = d.rule
   AND (d.rule, d.consumer, d.opened_on) IN (SELECT l.rule, l.consumer, l.opened_on FROM data_life l
                                              WHERE l.ends_on < $1 ORDER BY l.ends_on LIMIT $2)
RETURNING d.rule, r.kind, r.grantor, d.consumer, r.item, d.ends_on, d.records;

-- name: found
-- Returns what was not known: that alone is said.
INSERT INTO due (rule, name, day, consumer, kind, provider, item, count)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::date[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[])
ON CONFLICT DO NOTHING
RETURNING rule, name, day, consumer, kind, provider, item, count;

-- name: untold
SELECT rule, name, day, consumer, kind, provider, item, count FROM due WHERE NOT told ORDER BY found_at LIMIT $1;

-- name: told
UPDATE due SET told = true WHERE rule = $1 AND name = $2 AND day = $3 AND consumer = $4;
