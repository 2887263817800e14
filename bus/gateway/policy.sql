-- name: value
-- A record as it was received, admitted or in conflict.
SELECT value FROM record WHERE leaf_hash = $1 UNION ALL SELECT value FROM conflict WHERE leaf_hash = $1 LIMIT 1;

-- name: named
-- Of these documents, those that a department is a party to; of all, if it may see everybody's.
SELECT id, kind, revision, state, hash, body FROM rule
 WHERE id = ANY($1::uuid[]) AND kind = ANY($2::text[]) AND ($3 OR grantor = $4 OR grantee = $4 OR kind = 'item');

-- name: standing
-- Everything that decides, but consents and mandates, which are subjects'. Of all, if a department may see everybody's.
SELECT id, kind, revision, state, hash, body FROM rule
 WHERE kind IN ('agreement', 'power', 'item') AND ($1 OR grantor = $2 OR grantee = $2 OR kind = 'item')
 ORDER BY id LIMIT $3;

-- name: versions
SELECT licence, leaf_hash, sequence, operation, valid_from, valid_until, admitted_at FROM record
 WHERE licence = ANY($1::bytea[]);

-- name: before_last_day
-- The state that a document was in before the clock ended it, of those that nobody has touched since.
SELECT a.rule, b.state FROM rule r
  JOIN rule_act a ON a.rule = r.id AND a.revision = r.revision AND a.act = 'EXPIRE'
  JOIN rule_act b ON b.rule = r.id AND b.revision = r.revision - 1
 WHERE r.id = ANY($1::uuid[]);

-- name: acts_since
SELECT a.rule, a.revision, a.act, a.state, a.author, a.reason, a.at FROM rule_act a
 WHERE a.rule = ANY($1::uuid[]) AND a.at >= $2 ORDER BY a.at, a.rule;
