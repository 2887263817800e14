-- A department whose sessions its own gateways open: they have a login of their own at Kafka.
ALTER TABLE org ADD own_gateway boolean NOT NULL DEFAULT false;
