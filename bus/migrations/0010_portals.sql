-- Who reads for others. A portal (政务服务窗口 or site) asks for a person or a firm who has opened their data.
ALTER TABLE org ADD portal boolean NOT NULL DEFAULT false;

-- The scorecard counts the records that were admitted on some days. They stand in that order: an index of ranges of pages
-- costs an admission nothing.
CREATE INDEX record_admitted ON record USING brin (admitted_at);
