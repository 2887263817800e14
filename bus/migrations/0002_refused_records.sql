-- Gateways tell consumers of refused records, so that nobody waits for them. Only of a record whose signature holds: a
-- damaged copy says nothing about the record that it was made from.
ALTER TABLE refusal ADD leaf_hash bytea;
CREATE INDEX refusal_leaf ON refusal (leaf_hash) WHERE leaf_hash IS NOT NULL;
