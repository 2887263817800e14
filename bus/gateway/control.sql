-- name: add_org
INSERT INTO org (uscc, name, auditor, portal) VALUES ($1, $2, $3, $4)
ON CONFLICT (uscc) DO UPDATE SET auditor = org.auditor OR EXCLUDED.auditor, portal = org.portal OR EXCLUDED.portal;

-- name: add_issuer
INSERT INTO issuer (item, uscc, region) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING;

-- name: orgs
SELECT o.uscc, o.name, o.suspended, o.auditor, o.portal,
       ARRAY(SELECT CASE i.region WHEN '' THEN i.item ELSE i.item || ':' || i.region END
               FROM issuer i WHERE i.uscc = o.uscc ORDER BY 1) AS issues
  FROM org o ORDER BY o.name;

-- name: issues
SELECT EXISTS (SELECT 1 FROM issuer WHERE item = $1 AND uscc = $2);

-- name: is_auditor
SELECT auditor FROM org WHERE uscc = $1;

-- name: is_portal
SELECT portal AND NOT suspended FROM org WHERE uscc = $1;

-- name: known
SELECT EXISTS (SELECT 1 FROM org WHERE uscc = $1);

-- name: put_agreement
INSERT INTO agreement (id, revision, provider, consumer, item, state, body) VALUES ($1, $2, $3, $4, $5, $6, $7);

-- name: lock_agreement
SELECT body FROM agreement WHERE id = $1 FOR UPDATE;

-- name: change_agreement
UPDATE agreement SET revision = $2, state = $3, body = $4, changed_at = now() WHERE id = $1;

-- name: agreements_of
SELECT body FROM agreement WHERE (provider = $1 OR consumer = $1) AND ($2::uuid IS NULL OR id = $2) ORDER BY id LIMIT $3;

-- name: put_consent
INSERT INTO consent (id, revision, subject, recipient, item, state, body) VALUES ($1, $2, $3, $4, $5, $6, $7);

-- name: lock_consent
SELECT body FROM consent WHERE id = $1 FOR UPDATE;

-- name: change_consent
UPDATE consent SET revision = $2, state = $3, body = $4, changed_at = now() WHERE id = $1;

-- name: consent
SELECT body FROM consent WHERE id = $1;

-- name: consents_of
SELECT body FROM consent WHERE subject = $1 ORDER BY id LIMIT $2;
