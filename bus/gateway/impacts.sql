-- name: record
-- A record, its licence as it stands now, and whose it is (pseudonyms, for the entry about this reading).
SELECT r.licence, r.item, r.issuer, l.issuer AS licence_issuer, l.status, l.sequence,
       ARRAY(SELECT s.pseudonym FROM licence_subject s WHERE s.licence = r.licence ORDER BY 1) AS subjects
  FROM record r JOIN licence l ON l.licence = r.licence WHERE r.leaf_hash = $1;
