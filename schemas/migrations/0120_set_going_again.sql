-- A job that is set going again has been published before without a worker having declined it: the
-- dispatcher must tell the two apart, since it keeps a window for the one and not for the other.

ALTER TABLE job ADD COLUMN publications_before integer NOT NULL DEFAULT 0;
COMMENT ON COLUMN job.publications_before IS 'How many of its publications do not count as tries: those from before it was set going again, by an operator or because its message was lost. Of the others, each beyond failures + 1 was declined by a worker for a fault of its own.';
