-- name: settings
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;

-- name: version
PRAGMA user_version;

-- name: create
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS checkpoint (
    origin      TEXT PRIMARY KEY,
    origin_hash TEXT NOT NULL UNIQUE,
    size        INTEGER NOT NULL CHECK (size >= 0),
    root        BLOB NOT NULL CHECK (length(root) = 32),
    note        BLOB NOT NULL
) WITHOUT ROWID;
PRAGMA user_version = 1;
COMMIT;

-- name: latest
SELECT size, root FROM checkpoint WHERE origin = :origin;

-- name: note
SELECT note FROM checkpoint WHERE origin_hash = :origin_hash;

-- name: first
INSERT INTO checkpoint (origin, origin_hash, size, root, note)
VALUES (:origin, :origin_hash, :size, :root, :note)
ON CONFLICT DO NOTHING;

-- name: advance
UPDATE checkpoint SET size = :size, root = :root, note = :note
WHERE origin = :origin AND size = :old_size AND root = :old_root AND size <= :size;
