-- A provider's records of an item in the order of their leaf hashes: what a search for those that may be opened walks.
CREATE INDEX record_place ON record (item, (COALESCE(authority, issuer)), leaf_hash);
