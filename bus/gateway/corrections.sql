-- name: opened
-- Whether the caller may have opened a section of this provider's item: by an agreement that came into use once.
SELECT EXISTS (SELECT 1 FROM rule a JOIN rule_act t ON t.rule = a.id AND t.act = 'ACTIVATE'
                WHERE a.kind = 'agreement' AND a.grantee = $1 AND a.grantor = $2 AND a.item = $3
                  AND a.body->'sections' ? $4);
