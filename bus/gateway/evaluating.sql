-- name: heads
-- The beginnings of records, which have their claims.
SELECT leaf_hash, substring(value FROM 1 FOR $2) AS head FROM record WHERE leaf_hash = ANY($1::bytea[]);

-- name: departments
-- In the order of code points, as names of a search are.
SELECT uscc FROM org WHERE uscc COLLATE "C" > $1 ORDER BY uscc COLLATE "C" LIMIT $2;

-- name: records
-- A provider's records of an item, by leaf hash: one range of record_place.
SELECT leaf_hash FROM record
 WHERE item = $1 AND COALESCE(authority, issuer) = $2 AND leaf_hash > $3 ORDER BY leaf_hash LIMIT $4;
