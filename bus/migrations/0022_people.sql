-- People: auditors, data officers (数据官), who runs the bus. Known by a pseudonym of what their OpenID provider calls
-- them, keyed with the gateways' own key: neither a citizen number nor a provider's name for anybody stands here.
CREATE TABLE person (
    id          bytea PRIMARY KEY,
    uscc        text NOT NULL REFERENCES org,
    role        text NOT NULL CHECK (role IN ('AUDITOR', 'OFFICER', 'OPERATOR')),  -- one each: roles are apart
    name        text NOT NULL,                       -- her department's own id of her
    state       text NOT NULL CHECK (state IN ('ACTIVE', 'SUSPENDED', 'DISMISSED')),
    revision    integer NOT NULL,
    changed_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX person_uscc ON person (uscc);

-- A login that has begun and not come back from the provider. What it was begun with follows from the secret that only
-- its browser or command holds; here is that secret's hash.
CREATE TABLE login (
    handle        bytea PRIMARY KEY,                 -- SHA-256
    redirect_uri  text NOT NULL,
    begun_at      timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX login_begun ON login (begun_at);

-- Who is logged in. A row that goes ends the session everywhere, at once.
CREATE TABLE person_session (
    token     bytea PRIMARY KEY,                     -- SHA-256 of what the browser or the command holds
    person    bytea NOT NULL REFERENCES person,
    begun_at  timestamptz NOT NULL DEFAULT now(),
    seen_at   timestamptz NOT NULL DEFAULT now(),
    ends_at   timestamptz NOT NULL
);
CREATE INDEX person_session_person ON person_session (person, begun_at);

-- Acts on a department are counted, as those on any document.
ALTER TABLE org ADD revision integer NOT NULL DEFAULT 1;
