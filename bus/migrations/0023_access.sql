-- Whose access at Kafka follows from what is here is told at once when it changes: `bus.keeper` listens.
CREATE FUNCTION tell_access() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('access', '');
    RETURN NULL;
END $$;
CREATE TRIGGER rule_access AFTER INSERT OR UPDATE ON rule
    FOR EACH ROW WHEN (NEW.kind IN ('agreement', 'power')) EXECUTE FUNCTION tell_access();
CREATE TRIGGER org_access AFTER INSERT OR UPDATE OR DELETE ON org
    FOR EACH STATEMENT EXECUTE FUNCTION tell_access();

-- What is looked through for it: the consents beside them are a hundred times as many.
CREATE INDEX rule_access ON rule (grantee) WHERE kind IN ('agreement', 'power') AND state = 'ACTIVE';
