//! Reaching the database for a command that looks at results: the one that the settings name, or
//! the private one that `coord run` left in the data folder, started for as long as it is needed.

use crate::{
    config::{Origin, Settings},
    local::programs::Programs,
    local::{Connection, Servers},
};
use halfheard_store::Store;
use std::ops::Deref;

/// A database to look at.
#[derive(Debug)]
pub struct Database {
    store: Store,
    /// Where it was started for this command.
    private: Option<Servers>,
}

impl Deref for Database {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.store
    }
}

impl Database {
    /// Connects, and checks that the database is as new as the program.
    ///
    /// # Errors
    ///
    /// Nobody there, not let in, not migrated; or the private server does not start.
    pub async fn open(settings: &Settings) -> anyhow::Result<Self> {
        if settings.database_origin == Origin::Default && Servers::exists(&settings.data_dir) {
            let servers =
                Servers::start_database(&settings.data_dir, &Programs::discover()).await?;
            let store = Store::connect_with(servers.database()).await?;
            // It is ours alone: an older one is brought up to date without asking.
            store.migrate().await?;
            return Ok(Self {
                store,
                private: Some(servers),
            });
        }
        let connected = Store::connect_with(settings.database.clone()).await;
        let store = connected.map_err(|error| match settings.database_origin {
            // Nobody named a database: on a laptop there is none before the first run.
            Origin::Default if error.is_transient() => anyhow::Error::from(error).context(format!(
                "nothing was run here yet: `coord run SPEC` runs a sweep below {}; of a cluster, \
                 name the database (HALFHEARD_DATABASE_URL)",
                settings.data_dir.display()
            )),
            _ => error.into(),
        })?;
        store.check().await?;
        Ok(Self {
            store,
            private: None,
        })
    }

    /// Whether it was started for this command alone.
    pub fn is_private(&self) -> bool {
        self.private.is_some()
    }

    /// Closes the connection and stops what was started.
    pub async fn close(self) {
        self.store.pool().close().await;
        if let Some(servers) = self.private {
            servers.stop().await;
        }
    }
}

impl Settings {
    /// Where nothing names a broker or a database, uses those that `coord run` runs on the data
    /// folder at this moment, if it does.
    pub fn adopt_running(&mut self) {
        let broker = self.broker_origin == Origin::Default;
        let database = self.database_origin == Origin::Default;
        if !broker && !database {
            return;
        }
        let Some(connection) = Connection::of_running(&self.data_dir) else {
            return;
        };
        if database {
            self.database = connection.database();
            self.database_origin = Origin::Private;
        }
        if let Some(url) = connection.nats_url.filter(|_| broker) {
            self.broker.url = url;
            self.broker_origin = Origin::Private;
        }
    }
}
