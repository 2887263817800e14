-- Whose session a token of the log's files was given in (`person_session.token`): it ends with that. Null: a department's.
ALTER TABLE audit_token ADD session bytea;
