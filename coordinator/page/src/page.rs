//! What the pages are made of.

use crate::{
    access::Access, board::Board, changes::Changes, failed::Failed, guesses::Guesses, maps::Maps,
};
use halfheard_analysis::Sources;
use halfheard_shared::broker::{BrokerSettings, heartbeats::Heartbeats};
use halfheard_store::Store;
use std::{path::PathBuf, sync::Arc};
use tokio_util::sync::CancellationToken;

/// What the pages are made of. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Page {
    /// The database.
    pub store: Store,
    /// What workers say, as this coordinator hears it.
    pub heartbeats: Heartbeats,
    /// Where figures find features and datasets.
    pub places: Arc<Places>,
    /// Who may look, and whether the page may change anything.
    pub access: Arc<Access>,
    /// When something changed.
    pub(crate) changes: Changes,
    /// Who guesses the token.
    pub(crate) guesses: Arc<Guesses>,
    /// All sweeps, which all viewers share.
    pub(crate) board: Arc<Board>,
    /// The maps of sweeps, which all viewers share.
    pub(crate) maps: Arc<Maps>,
    /// What failed, which all viewers share.
    pub(crate) failed: Arc<Failed>,
}

impl Page {
    /// Pages about what is in `store`, until `stop`. A task looks for changes while somebody listens.
    pub fn new(
        store: Store,
        heartbeats: Heartbeats,
        places: Places,
        access: Arc<Access>,
        stop: CancellationToken,
    ) -> Self {
        let board = Arc::<Board>::default();
        Self {
            changes: Changes::watch(store.clone(), heartbeats.clone(), board.clone(), stop),
            store,
            heartbeats,
            places: Arc::new(places),
            access,
            guesses: Arc::default(),
            board,
            maps: Arc::default(),
            failed: Arc::default(),
        }
    }
}

/// Where figures find what is not in the database; see [`Sources`].
#[derive(Debug)]
pub struct Places {
    /// The URL of the artifact store.
    pub artifacts: String,
    /// The folder of imported datasets.
    pub data_dir: PathBuf,
    /// The broker, for artifacts in its object store.
    pub broker: BrokerSettings,
}

impl Places {
    /// The same, borrowed.
    pub fn sources(&self) -> Sources<'_> {
        Sources {
            artifacts: &self.artifacts,
            data_dir: &self.data_dir,
            broker: &self.broker,
        }
    }
}
