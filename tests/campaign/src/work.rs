//! What the cluster has to do: sweeps on a tiny dataset, each of which shares a seed with the one
//! before it.

use crate::{cluster::Cluster, journal::Journal};
use anyhow::Result;
use serde_json::json;
use std::{
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

/// Training samples; decides how long a training job lasts.
const SAMPLES: usize = 320;
/// Epochs of each training job.
const EPOCHS: u32 = 8;
/// Training methods.
const METHODS: u64 = 2;
/// Evaluations of each model.
const CASES: u64 = 4;

/// The sweeps of a campaign.
#[derive(Clone, Debug, Default)]
pub struct Work {
    /// How many were submitted.
    pub sweeps: u64,
}

/// A sweep's name.
pub fn name(number: u64) -> String {
    format!("campaign-{number}")
}

impl Work {
    /// Writes dataset and encoder.
    ///
    /// # Errors
    ///
    /// They cannot be written.
    pub fn prepare(cluster: &Cluster) -> Result<()> {
        let folder = &cluster.folders.work;
        halfheard_tiny::dataset(&folder.join("tiny.safetensors"), SAMPLES)?;
        halfheard_tiny::encoder(&folder.join("tiny-encoder"))
    }

    /// How many jobs all submitted sweeps have together, each counted once.
    pub fn jobs(&self) -> u64 {
        // Each sweep has two seeds and shares one with its neighbor.
        let seeds = if self.sweeps == 0 { 0 } else { self.sweeps + 1 };
        seeds * METHODS * (1 + CASES)
    }

    /// Submits one more sweep; again until it is accepted or `patience` is over.
    ///
    /// # Errors
    ///
    /// It is not accepted: what `coord` said last.
    pub fn submit(
        &mut self,
        cluster: &Cluster,
        journal: &Journal,
        patience: Duration,
    ) -> Result<()> {
        let number = self.sweeps;
        let path = write_spec(cluster, number)?;
        let since = Instant::now();
        loop {
            match cluster.coord(&["submit", &path.display().to_string()]) {
                Ok(_) => {
                    self.sweeps += 1;
                    journal.write("submitted", json!({ "sweep": name(number) }));
                    return Ok(());
                }
                Err(error) if since.elapsed() > patience => return Err(error),
                Err(error) => {
                    let facts = json!({ "sweep": name(number), "error": format!("{error:#}") });
                    journal.write("not submitted", facts);
                    thread::sleep(Duration::from_secs(1));
                }
            }
        }
    }
}

fn write_spec(cluster: &Cluster, number: u64) -> Result<PathBuf> {
    let name = name(number);
    let seeds = [1000 + number, 1001 + number];
    let text = format!(
        r#"
name = "{name}"
methods = ["almt", "lnln"]
seeds = {seeds:?}
rates = [0.0, 0.3, 0.9]
missing = ["la"]
epochs = {EPOCHS}

[protocol]
numerics = "portable"

[datasets.mosi]
file = "tiny.safetensors"

[encoders.en]
path = "tiny-encoder"

[hyper.almt]
batch_size = 16
learning_rate = 1e-3
width = 16
tokens = 4
embedding_depth = [1, 1, 1]
embedding_heads = [2, 2, 2]
embedding_hidden = 16
language_heads = 2
hyper_depth = 1
hyper_heads = 2
fusion_depth = 1
fusion_heads = 2
fusion_hidden = 16

[hyper.lnln]
batch_size = 16
learning_rate = 1e-3
width = 16
tokens = 4
heads = 4
embedding_depth = 1
proxy_depth = 1
discriminator_hidden = 8
completeness_depth = 1
reconstructor_depth = 1
language_depth = 1
hyper_depth = 1
fusion_depth = 1
"#
    );
    let path = cluster.folders.work.join(format!("{name}.toml"));
    fs::write(&path, text)?;
    Ok(path)
}
