-- name: keep
INSERT INTO reading (entry, at, reader, operator, what, investigation, parties) VALUES ($1, $2, $3, $4, $5, $6, $7);

-- name: shown_to
-- A department's view: readings of entries that it was a party to, once they are shown; newest first.
SELECT r.number, r.entry, r.at, r.reader, r.operator, r.what, r.investigation, shown.since AS shown_from
  FROM reading r
  LEFT JOIN LATERAL (SELECT e.until FROM embargo e WHERE e.investigation = r.investigation AND e.confirmed_at IS NOT NULL
                      ORDER BY e.confirmed_at DESC LIMIT 1) AS set ON true
 CROSS JOIN LATERAL (SELECT LEAST(COALESCE(set.until, r.at + $4), r.at + $5) AS since) AS shown
 WHERE r.parties @> ARRAY[$1] AND r.number < $2 AND shown.since <= now()
 ORDER BY r.number DESC LIMIT $3;

-- name: all_readings
-- An auditor's view: everybody's, and when departments are shown them.
SELECT r.number, r.entry, r.at, r.reader, r.operator, r.what, r.investigation,
       LEAST(COALESCE(set.until, r.at + $3), r.at + $4) AS shown_from
  FROM reading r
  LEFT JOIN LATERAL (SELECT e.until FROM embargo e WHERE e.investigation = r.investigation AND e.confirmed_at IS NOT NULL
                      ORDER BY e.confirmed_at DESC LIMIT 1) AS set ON true
 WHERE r.number < $1
 ORDER BY r.number DESC LIMIT $2;

-- name: propose
INSERT INTO embargo (id, investigation, until, proposed_by, proposed_operator) VALUES ($1, $2, $3, $4, $5);

-- name: lock
SELECT id, investigation, until, proposed_by, proposed_operator, proposed_at, confirmed_by, confirmed_operator,
       confirmed_at
  FROM embargo WHERE id = $1 FOR UPDATE;

-- name: has_read
SELECT EXISTS (SELECT 1 FROM reading WHERE investigation = $1 AND reader = $2 AND operator = $3);

-- name: confirm
UPDATE embargo SET confirmed_by = $2, confirmed_operator = $3, confirmed_at = clock_timestamp() WHERE id = $1;

-- name: embargoes
SELECT id, investigation, until, proposed_by, proposed_operator, proposed_at, confirmed_by, confirmed_operator,
       confirmed_at
  FROM embargo ORDER BY proposed_at DESC LIMIT $1;
