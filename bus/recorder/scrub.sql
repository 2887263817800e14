-- name: state
SELECT size, root FROM log_state WHERE id = 1;

-- name: terms
SELECT term, day, bundle, bits FROM log_term WHERE bundle BETWEEN $1 AND $2;

-- name: listed
SELECT dimension, value FROM log_word;

-- name: beyond
-- What is stored behind the end of a log of $1 entries: the first such tile, or bundle (level -1).
SELECT level, number FROM log_tile
 WHERE length(hashes) > 32 * least(256, greatest(0, ($1::bigint >> (8 * level)) - 256 * number))
UNION ALL
SELECT -1, number FROM log_bundle WHERE number >= $1 / 256 AND cardinality(starts) > greatest(0, $1 - 256 * number)
 LIMIT 1;
