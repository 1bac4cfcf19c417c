//! Looking after what lies around: artifacts that nobody needs, backups, and whether the store is ours.

pub(crate) mod archive;
pub(crate) mod backup;
pub(crate) mod collect;
pub(crate) mod confirm;
pub(crate) mod missing;
pub(crate) mod own_store;
pub(crate) mod restore;
pub(crate) mod size;
