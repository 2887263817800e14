-- name: add_org
INSERT INTO org (uscc, name, auditor, portal, operator) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (uscc) DO UPDATE
   SET auditor = org.auditor OR EXCLUDED.auditor, portal = org.portal OR EXCLUDED.portal,
       operator = org.operator OR EXCLUDED.operator;

-- name: has_own_gateway
UPDATE org SET own_gateway = true WHERE uscc = $1;

-- name: orgs
SELECT o.uscc, o.name, o.suspended, o.auditor, o.portal, o.operator, o.own_gateway,
       ARRAY(SELECT DISTINCT CASE i.region WHEN '' THEN i.item ELSE i.item || ':' || i.region END
               FROM issuer i WHERE i.uscc = o.uscc AND i.state = 'ACTIVE' ORDER BY 1) AS issues
  FROM org o ORDER BY o.name;

-- name: is_auditor
SELECT auditor FROM org WHERE uscc = $1;

-- name: is_portal
SELECT portal AND NOT suspended FROM org WHERE uscc = $1;

-- name: names
SELECT uscc, name FROM org WHERE uscc = ANY($1::text[]);
