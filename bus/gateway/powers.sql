-- name: issues
-- Where a department issues items by law, now or from some day on: division prefixes, '' the whole country.
SELECT item, region FROM issuer
 WHERE uscc = $1 AND item = ANY($2::text[]) AND by_law AND state = 'ACTIVE'
   AND (valid_until IS NULL OR valid_until >= $3);
