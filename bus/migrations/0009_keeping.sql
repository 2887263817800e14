-- C2SP tlog-tiles, 'Pruning': the log serves no entry below its minimum index. What is below stays stored.
ALTER TABLE log_state ADD minimum bigint NOT NULL DEFAULT 0 CHECK (minimum BETWEEN 0 AND size);
