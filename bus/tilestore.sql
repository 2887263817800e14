-- name: tiles
SELECT t.level, t.number, t.hashes
  FROM log_tile t JOIN unnest($1::smallint[], $2::bigint[]) AS want(level, number)
    ON t.level = want.level AND t.number = want.number;

-- name: bundles
SELECT number, opened, starts, logged_at, entries FROM log_bundle WHERE number BETWEEN $1 AND $2 ORDER BY number;

-- name: places
-- Where the entries of these bundles begin and when they came, without the entries.
SELECT number, opened, starts, logged_at FROM log_bundle WHERE number = ANY($1::bigint[]);

-- name: values
-- An entry each: its two bytes of length say how far it goes. External storage reads these bytes and no others.
SELECT want.number, want.place,
       substring(b.entries FROM want.start + 1
                 FOR get_byte(substring(b.entries FROM want.start - 1 FOR 2), 0) * 256
                     + get_byte(substring(b.entries FROM want.start - 1 FOR 2), 1)) AS value
  FROM unnest($1::bigint[], $2::date[], $3::integer[], $4::integer[]) AS want(number, opened, place, start)
  JOIN log_bundle b ON b.number = want.number AND b.opened = want.opened;
