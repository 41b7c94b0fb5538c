-- What a script begins with in a cluster. Where the slot is being moved to another node, some of its keys are gone, and the
-- script would fail in the middle. A key that never exists is gone as well: then it fails here, before it has done anything.

call('EXISTS', ns .. 'nothing')
