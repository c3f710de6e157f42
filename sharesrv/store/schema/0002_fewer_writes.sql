-- A random place in an index costs a page of the write-ahead log at every commit, so a share that comes and goes touches few:
-- `live` changes only when a share ends, and one index serves whatever is asked of a device.

ALTER TABLE share ADD COLUMN live INTEGER NOT NULL DEFAULT 0; -- 1 while open, joined, active or barred
UPDATE share SET live = 1 WHERE state IN ('open', 'joined', 'active', 'barred');
DROP INDEX share_live;
DROP INDEX share_held;
DROP INDEX share_asked;
DROP INDEX share_device;
CREATE INDEX share_of ON share (device_id, live, sharee_id, sequence);
CREATE INDEX share_held ON share (sharee_id, sharer_id) WHERE state IN ('joined', 'active', 'barred');
DROP INDEX journal_device; -- a device's rows are those of its shares

-- Whoever does not know of `live`, an older program that still runs, is corrected.
CREATE TRIGGER share_live_made AFTER INSERT ON share
WHEN NEW.live <> (NEW.state IN ('open', 'joined', 'active', 'barred'))
BEGIN
    UPDATE share SET live = NOT NEW.live WHERE id = NEW.id;
END;
CREATE TRIGGER share_live_moved AFTER UPDATE OF state ON share
WHEN NEW.live <> (NEW.state IN ('open', 'joined', 'active', 'barred'))
BEGIN
    UPDATE share SET live = NOT NEW.live WHERE id = NEW.id;
END;
