-- Days that came: an answer or a delivery is late, a purpose is reached, opened data is to be deleted. Each is found
-- once, by its primary key; its entry for the log stands in the same transaction, `told` says that the topic has it.
CREATE TABLE due (
    rule      uuid NOT NULL REFERENCES rule,
    name      text NOT NULL,                         -- of the limit
    day       date NOT NULL,                         -- the last day in time
    consumer  text NOT NULL,
    kind      text NOT NULL,                         -- of the rule
    provider  text NOT NULL,
    item      text NOT NULL,
    count     bigint NOT NULL,                       -- of what it concerns
    found_at  timestamptz NOT NULL DEFAULT now(),
    told      boolean NOT NULL DEFAULT false,
    PRIMARY KEY (rule, name, day, consumer)
);
CREATE INDEX due_untold ON due (found_at) WHERE NOT told;

-- How many records a consumer opened on a day under a rule that says how long it may keep them; until that day came.
-- No reference to `rule`: it would be locked by every release.
CREATE TABLE data_life (
    rule      uuid NOT NULL,
    consumer  text NOT NULL,
    opened_on date NOT NULL,
    ends_on   date NOT NULL,                         -- the last day on which they may be kept
    records   bigint NOT NULL,
    PRIMARY KEY (rule, consumer, opened_on)
);
CREATE INDEX data_life_ends ON data_life (ends_on);

-- What the recorder's clock looks at each minute.
CREATE INDEX rule_waiting ON rule (id)
 WHERE kind IN ('agreement', 'correction', 'dispute')
   AND state IN ('SUBMITTED', 'ACCEPTED', 'APPROVED', 'REQUESTED', 'DISPUTED', 'COORDINATED');
CREATE INDEX rule_purpose ON rule ((body->>'purpose_until'))
 WHERE kind = 'agreement' AND state IN ('ACTIVE', 'SUSPENDED') AND body->>'purpose_until' IS NOT NULL;
