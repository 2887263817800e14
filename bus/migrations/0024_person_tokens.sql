-- A person's token of the log's files ends with the session that it was given in (`person_session.token`).
ALTER TABLE audit_token ADD session bytea;
