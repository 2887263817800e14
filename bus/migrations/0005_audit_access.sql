-- Tokens with which an auditor fetches the log's entry bundles: only a token's hash is here.
CREATE TABLE audit_token (
    hash        bytea PRIMARY KEY,                   -- SHA-256 of the token
    holder      text NOT NULL REFERENCES org,
    expires_at  timestamptz NOT NULL
);
CREATE INDEX audit_token_expiry ON audit_token (expires_at);
