-- Agreements, consents, powers, mandates, catalogue entries, corrections, disputes: one table of documents, each with a
-- body that never changes under its hash, and its state beside it.
CREATE TABLE rule (
    id        uuid PRIMARY KEY,
    kind      text NOT NULL,                         -- consent.documents.Document.kind
    revision  integer NOT NULL,
    state     text NOT NULL,
    hash      bytea,                                 -- of the body; null for what came from before this step
    grantor   text NOT NULL,                         -- an agreement's provider, who recorded a consent, who gives a power
    grantee   text NOT NULL,                         -- an agreement's consumer, a consent's recipient, who gets a power
    item      text NOT NULL,                         -- of what speaks of one item; else ''
    until     date,                                  -- its last day, while there is one to wait for
    since     timestamptz NOT NULL DEFAULT now(),    -- in this state
    body      jsonb NOT NULL
);
CREATE INDEX rule_grantee ON rule (grantee, kind, grantor, item);
CREATE INDEX rule_grantor ON rule (grantor, kind);
CREATE INDEX rule_item ON rule (item, kind) WHERE kind IN ('item', 'agreement');
CREATE INDEX rule_until ON rule (until) WHERE until IS NOT NULL;

-- Whom a consent or a mandate is about: pseudonyms. `grantee` as in its rule.
CREATE TABLE rule_scope (
    subject   bytea NOT NULL,
    item      text NOT NULL,
    grantee   text NOT NULL,
    rule      uuid NOT NULL REFERENCES rule,
    PRIMARY KEY (subject, item, grantee, rule)
);

-- Each act on a rule, as the trail has it.
CREATE TABLE rule_act (
    rule      uuid NOT NULL REFERENCES rule,
    revision  integer NOT NULL,
    act       text NOT NULL,
    state     text NOT NULL,
    author    text NOT NULL,
    reason    text NOT NULL,
    at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (rule, revision)
);

-- What stands moves over. New entries of a body say what was true of all old ones: a stream, told, nothing onward.
INSERT INTO rule (id, kind, revision, state, grantor, grantee, item, until, since, body)
SELECT id, 'agreement', revision, state, provider, consumer, item,
       CASE WHEN state <> 'TERMINATED' THEN (body->>'valid_until')::date END, changed_at,
       body - 'revision' - 'state' || jsonb_build_object(
           'basis', '', 'scenario', '', 'mode', 'STREAM', 'notice', 'GIVEN', 'purpose_until', NULL,
           'requests_a_day', NULL, 'data_life', NULL, 'onward', '[]'::jsonb, 'set_limit', NULL, 'set_until', NULL)
  FROM agreement;
INSERT INTO rule (id, kind, revision, state, grantor, grantee, item, until, since, body)
SELECT id, 'consent', revision, state, body->>'recorded_by', recipient, item,
       CASE WHEN state <> 'WITHDRAWN' THEN (body->>'valid_until')::date END, changed_at,
       body - 'revision' - 'state' - 'subject' - 'item' - 'sections' - 'sensitive' || jsonb_build_object(
           'scopes', jsonb_build_array(jsonb_build_object('item', item, 'subject', body->'subject',
                                                          'sections', body->'sections', 'sensitive', body->'sensitive')),
           'agreements', '[]'::jsonb, 'mode', 'STREAM', 'frequency', NULL, 'data_life', NULL, 'notice', 'GIVEN',
           'given_by', 'SUBJECT', 'minor_until', NULL)
  FROM consent;
INSERT INTO rule_scope (subject, item, grantee, rule) SELECT subject, item, recipient, id FROM consent;
DROP TABLE agreement;
DROP TABLE consent;

-- A limit of its own for each kind of unit: requests a day, records a day, uses, uses in a period.
ALTER TABLE usage ADD code text NOT NULL DEFAULT 'VOLUME_EXCEEDED';
UPDATE usage SET code = 'CONSENT_USED_UP' WHERE period = '1970-01-01';
ALTER TABLE usage DROP CONSTRAINT usage_pkey, ADD PRIMARY KEY (rule, code, period);
