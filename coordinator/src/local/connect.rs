//! The database for commands that read results: the configured one, or the private one that `coord
//! run` left in the data folder, started while it is needed.

use super::{Connection, Servers, programs::Programs};
use crate::config::{Origin, Settings};
use halfheard_shared::error::WithHint as _;
use halfheard_store::Store;
use std::ops::Deref;

/// An open database.
#[derive(Debug)]
pub struct Database {
    store: Store,
    /// The private server, if this command started one.
    servers: Option<Servers>,
}

impl Deref for Database {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.store
    }
}

impl Database {
    /// Connects and checks that the database is migrated.
    ///
    /// # Errors
    ///
    /// It refuses the connection or is not migrated, or the private server does not start.
    pub async fn open(settings: &Settings) -> anyhow::Result<Self> {
        if settings.database_origin == Origin::Default && Servers::exists(&settings.data_dir) {
            let servers =
                Servers::start_database(&settings.data_dir, &Programs::discover()).await?;
            let store = Store::connect_with(servers.database()).await?;
            // It has no other users: migrate without asking.
            store.migrate().await?;
            return Ok(Self {
                store,
                servers: Some(servers),
            });
        }
        let store = match Store::connect_with(settings.database.clone()).await {
            Ok(store) => store,
            // No database is configured: on a laptop there is none before the first run.
            Err(error) if settings.database_origin == Origin::Default && error.is_transient() => {
                return Err(anyhow::Error::from(error).context("no sweep was run here yet"))
                    .hint(format!(
                        "run one below {} with `coord run SPEC`, or name a cluster's database in \
                         HALFHEARD_DATABASE_URL",
                        settings.data_dir.display()
                    ))
                    .map_err(Into::into);
            }
            Err(error) => return Err(error.into()),
        };
        store.check().await?;
        Ok(Self {
            store,
            servers: None,
        })
    }

    /// Returns whether its server was started for this command.
    pub fn is_private(&self) -> bool {
        self.servers.is_some()
    }

    /// Closes the connection and stops the private server.
    pub async fn close(self) {
        self.store.pool().close().await;
        if let Some(servers) = self.servers {
            servers.stop().await;
        }
    }
}

impl Settings {
    /// If no broker or database is configured, uses those of a `coord run` that is running on the
    /// data folder.
    pub(crate) fn use_running_servers(&mut self) {
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
