-- name: settings
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;

-- name: version
PRAGMA user_version;

-- name: create
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS account (
    name      TEXT PRIMARY KEY,
    subject   TEXT NOT NULL UNIQUE,
    password  TEXT NOT NULL,             -- Argon2id, PHC string
    suspended INTEGER NOT NULL DEFAULT 0,
    made_at   INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS failure (
    who       TEXT PRIMARY KEY,          -- 'account:<name>' or 'address:<ip>'
    count     INTEGER NOT NULL,
    until     INTEGER NOT NULL           -- then it is forgotten
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS code (
    hash         BLOB PRIMARY KEY,
    subject      TEXT NOT NULL,
    redirect_uri TEXT NOT NULL,
    challenge    TEXT NOT NULL,
    nonce        TEXT NOT NULL,
    until        INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS signing_key (
    number    INTEGER PRIMARY KEY,
    kid       TEXT NOT NULL UNIQUE,
    private   TEXT NOT NULL              -- JWK
);
PRAGMA user_version = 1;
COMMIT;

-- name: add
INSERT INTO account (name, subject, password, made_at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING;

-- name: accounts
SELECT name, subject, suspended, made_at FROM account ORDER BY name;

-- name: password
SELECT subject, password, suspended FROM account WHERE name = ?;

-- name: set_password
UPDATE account SET password = ?, suspended = 0 WHERE name = ?;

-- name: suspend
UPDATE account SET suspended = 1 WHERE name = ?;

-- name: is_good
SELECT 1 FROM account WHERE subject = ? AND NOT suspended;

-- name: forget_failures
DELETE FROM failure WHERE until <= ?;

-- name: failures
SELECT coalesce(max(count >= CASE WHEN who LIKE 'account:%' THEN ? ELSE ? END), 0) FROM failure WHERE who IN (?, ?);

-- name: failed
INSERT INTO failure (who, count, until) VALUES (?, 1, ?)
ON CONFLICT (who) DO UPDATE SET count = min(count + 1, 1000);

-- name: bound_failures
DELETE FROM failure WHERE who IN (SELECT who FROM failure ORDER BY until DESC LIMIT -1 OFFSET ?);

-- name: succeeded
DELETE FROM failure WHERE who = ?;

-- name: forget_codes
DELETE FROM code WHERE until <= ?;

-- name: put_code
INSERT INTO code (hash, subject, redirect_uri, challenge, nonce, until) VALUES (?, ?, ?, ?, ?, ?);

-- name: take_code
DELETE FROM code WHERE hash = ? RETURNING subject, redirect_uri, challenge, nonce, until;

-- name: keys
SELECT kid, private FROM signing_key ORDER BY number DESC LIMIT ?;

-- name: put_key
INSERT INTO signing_key (kid, private) VALUES (?, ?);

-- name: drop_keys
DELETE FROM signing_key WHERE number NOT IN (SELECT number FROM signing_key ORDER BY number DESC LIMIT ?);
